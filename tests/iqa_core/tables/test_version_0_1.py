"""Outputs and features that version 0.1 wrote (tests/data/v0.1) are opened, read, audited and re-scored."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.columns import EMBEDDING, IDENTITY, MARGINS, SCORE, SCORES
from iqa_core.errors import InputError
from iqa_core.prompts.file import load_prompts
from iqa_core.scoring.columns import score_columns
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import audit, left_to_do, read_committed
from iqa_core.tables.feature_cache import FeatureCache, features_of, views_of
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output, digest
from iqa_core.tables.part_content import Depth
from iqa_core.tables.parts import PartFiles
from iqa_core.tables.plan import PLAN, check_plan
from iqa_core.tables.schema import output_schema
from iqa_core.tables.sink import write_tables
from jobs.cli import main

WRITTEN = Path(__file__).parents[2] / "data/v0.1"


@pytest.fixture
def v01(tmp_path):
    """A copy of what version 0.1 wrote."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def manifest(v01):
    return open_manifest(str(v01 / "manifest"), ["mos", "kind"])


@pytest.fixture
def fingerprint(v01):
    """The fingerprint of the scores, as if the installed packages were those of then."""
    path = v01 / "scores/_run/fingerprint.json"
    document = json.loads(path.read_text())
    document["versions"] = {name: version(name) for name in document["versions"]}
    path.write_text(json.dumps(document))
    return document


def by_identity(table):
    return table.replace_schema_metadata(None).sort_by([(name, "ascending") for name in IDENTITY])


def test_the_output_is_opened_with_what_it_lacks(v01, manifest, fingerprint):
    output = Output(str(v01 / "scores"), manifest, fingerprint)
    assert len(output.committed().rows) == 20
    assert list(output.committed().rows.files()) == ["a.parquet"]
    assert output.committed().statuses.total() == 20
    assert left_to_do(manifest, output.committed())
    found = output.audit()
    assert (found.rows, found.found, found.missing) == (28, 20, 8)  # b.parquet has come since
    assert found.examples[0] == "b.parquet:0"
    assert found.twice == found.unknown == 0


def test_the_output_takes_the_rows_that_it_lacks(v01, manifest, fingerprint):
    output = Output(str(v01 / "scores"), manifest, fingerprint)
    before = PartFiles(output.folder).read(*output.committed().parts)
    with output.start({}):
        rows = [
            {"manifest_file": "b.parquet", "manifest_row": number, "status": "empty"}
            for number in range(8)
        ]
        output.write(pa.Table.from_pylist(rows, schema=before.schema))
    assert output.audit().passed
    assert not left_to_do(manifest, output.committed())
    assert output.committed().statuses["empty"] >= 8


def test_another_fingerprint_is_refused(v01, manifest, fingerprint):
    with pytest.raises(InputError, match="holds another run's rows, with precision"):
        Output(str(v01 / "scores"), manifest, fingerprint | {"precision": "bf16"})


def test_its_schema_is_the_one_of_today(v01, manifest, fingerprint):
    stored = PartFiles(Output(str(v01 / "scores"), manifest, fingerprint).folder)
    schema = output_schema(
        manifest,
        ["mos", "kind"],
        pairs=fingerprint["pairs"],
        embedding=FeatureCache(str(v01 / "features")).width,
    )
    assert stored.schema(stored.names()[0]).equals(schema)
    assert fingerprint["columns"] == [f"{field.name}: {field.type}" for field in schema]


@pytest.mark.parametrize("name", ["scores", "features", "rescored"])
def test_part_files_carry_the_fingerprint_of_their_folder(name, v01, manifest):
    parts = PartFiles(Folder.of(str(v01 / name)))
    committed = read_committed(parts, depth=Depth.WHOLE)
    fingerprint = json.loads((v01 / name / "_run/fingerprint.json").read_text())
    assert committed.fingerprints == {digest(fingerprint)}
    summary = json.loads((v01 / name / "_run/summary.json").read_text())
    assert committed.statuses == summary["statuses"]
    check_plan(name, parts.folder.read_json(PLAN), manifest)


def test_verify(v01, capsys):
    manifest = str(v01 / "manifest")
    for name in ("features", "rescored"):
        assert main(["verify", "--scores", str(v01 / name), "--manifest", manifest]) == 0
        assert "28 rows in, 28 rows out: none missing, none twice" in capsys.readouterr().out
    assert main(["verify", "--scores", str(v01 / "scores"), "--manifest", manifest]) == 1
    assert "28 rows in, 20 rows out: 8 missing" in capsys.readouterr().out


def test_features_are_read(v01):
    cache = FeatureCache(str(v01 / "features"))
    assert cache.kept == ["mos"]
    assert cache.manifest().rows == 28
    assert cache.views == 3
    (table,) = cache.tables()
    features, (views, levels) = features_of(table), views_of(table)
    assert features.shape == (28, cache.width)
    assert views.shape == (28, 3, cache.width)
    assert levels.shape == (28, 3)
    assert cache.tower["model"] == "tiny"


def test_features_are_rescored_bit_for_bit(v01, tmp_path):
    """By the text features of the prompt file, so that no weights of today have a part in it."""
    cache = FeatureCache(str(v01 / "features"))
    prompts = load_prompts(v01 / "prompts.safetensors").features
    manifest = cache.manifest()
    schema = output_schema(manifest, cache.kept, pairs=prompts.names)
    output = Output(str(tmp_path / "again"), manifest, {})

    def scored():
        stored = [name for name in schema.names if name in cache.schema.names]
        further = [name for name in stored if name not in IDENTITY]
        for table in cache.tables([*further, EMBEDDING]):
            columns = score_columns(features_of(table), prompts)
            columns |= {name: table.column(name) for name in stored}
            yield pa.table({name: columns[name] for name in schema.names}).cast(schema)

    with output.start({}):
        write_tables(output, scored(), 10_000)
    assert audit(manifest, output.committed().rows).passed
    parts = PartFiles(output.folder)
    again = by_identity(parts.read(parts.names()[0]))
    (path,) = (v01 / "rescored").glob("part-*.parquet")
    before = by_identity(pq.ParquetFile(path).read())
    for name in (SCORE, SCORES, MARGINS):
        assert again.column(name).equals(before.column(name)), name
    assert again.equals(before)
    assert again.column(SCORE).null_count == 2  # of images that could not be read


def test_the_output_is_reported(v01, capsys):
    page = v01 / "page.html"
    options = ["--scores", str(v01 / "scores"), "--manifest", str(v01 / "manifest")]
    options += ["--compare", str(v01 / "rescored"), "--output", str(page), "--thumbnails", "4"]
    assert main(["report", *options]) == 0
    assert "20 rows" in capsys.readouterr().out
    assert "</html>" in page.read_text()
