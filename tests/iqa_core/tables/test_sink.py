"""Tests of iqa_core/tables/sink.py: a sink in memory and a column, both brought from outside."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from iqa_core.columns import EMBEDDING, IDENTITY, STATUS
from iqa_core.errors import InputError
from iqa_core.scoring.columns import score_columns
from iqa_core.scoring.features import PromptFeatures
from iqa_core.tables.audit import Committed, audit, left_to_do
from iqa_core.tables.feature_cache import FeatureCache, feature_column, features_of
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import ExtraColumn, output_schema, schema_with
from iqa_core.tables.sink import SinkWithColumns, write_tables
from iqa_core.tables.unscored import unscored_as_errors
from jobs.cli import main

ROWS = 6
WIDTH = 4
MARGIN = ExtraColumn(
    "certainty",
    pa.float32(),
    "distance of the score from 0.5",
    lambda rows: pc.abs(pc.subtract(rows["score"], 0.5)),
)


@dataclass
class MemorySink:
    """Rows in memory: what someone may bring who wants no files."""

    manifest: object
    tables: list = field(default_factory=list)
    writing: bool = False
    summary: dict = field(default_factory=dict)

    def committed(self):
        committed = Committed()
        for table in self.tables:
            committed.rows.add(table)
            committed.statuses += Counter(table.column(STATUS).to_pylist())
        return committed

    @contextmanager
    def start(self, config):
        assert config == {"model": "mine"}
        self.writing = True
        yield
        self.writing = False

    def write(self, table):
        if not self.writing:
            raise InputError("the sink in memory was not started")
        self.tables.append(unscored_as_errors(table))

    def drop(self, statuses):
        before = sum(map(len, self.tables))
        wanted = pa.array(statuses, pa.string())
        self.tables = [
            table.filter(pc.invert(pc.is_in(table.column(STATUS), wanted))) for table in self.tables
        ]
        return before - sum(map(len, self.tables))

    def note_damaged(self, files):
        pass

    def audit(self):
        return audit(self.manifest, self.committed().rows)

    def finish(self, summary):
        self.summary = dict(summary)


@pytest.fixture
def manifest(tmp_path):
    uris = [f"{number}.jpg" for number in range(ROWS)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    return open_manifest(str(tmp_path / "m.parquet"))


@pytest.fixture
def cache(tmp_path, manifest):
    """Features of six images in two part files; the last image has none."""
    features = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[-1] = np.nan
    schema = output_schema(manifest, (), embedding=WIDTH)
    output = Output(str(tmp_path / "features"), manifest, {"kind": "embed"})
    with output.start({}):
        for numbers in ([0, 1, 2], [3, 4, 5]):
            rows = pa.Table.from_pylist(
                [
                    {"manifest_file": "m.parquet", "manifest_row": number, "status": "ok"}
                    for number in numbers
                ],
                schema=schema,
            )
            place = schema.get_field_index(EMBEDDING)
            output.write(rows.set_column(place, EMBEDDING, feature_column(features[numbers])))
    return FeatureCache(str(tmp_path / "features"))


@pytest.fixture
def prompts():
    sides = np.eye(WIDTH, dtype=np.float32)[:4].reshape(2, 2, WIDTH)
    return PromptFeatures(("one", "other"), sides, 2.0, "digest")


def scored(cache, prompts, schema, done=None):
    """Yield the rows that scoring the features gives."""
    stored = [name for name in schema.names if name in cache.schema.names]
    further = [name for name in stored if name not in IDENTITY]
    for table in cache.tables([*further, EMBEDDING], done=done):
        columns = score_columns(features_of(table), prompts)
        columns |= {name: table.column(name) for name in stored}
        yield pa.table({name: columns[name] for name in schema.names}).cast(schema)


@pytest.fixture
def schema(manifest, prompts):
    return output_schema(manifest, (), pairs=prompts.names)


def test_a_sink_in_memory_is_scored_into_and_audited(manifest, cache, prompts, schema):
    sink = MemorySink(manifest)
    assert left_to_do(manifest, sink.committed())
    assert sink.audit().missing == ROWS
    calls = []
    with sink.start({"model": "mine"}):
        write_tables(sink, scored(cache, prompts, schema), 4, lambda: calls.append(1))
        sink.finish({"rows": ROWS})
    assert sink.audit().passed
    assert str(sink.audit()) == "6 rows in, 6 rows out: none missing, none twice"
    assert sink.committed().statuses == {"ok": 5, "model_error": 1}
    assert not left_to_do(manifest, sink.committed())
    assert [len(table) for table in sink.tables] == [6]  # 4 at least are written together
    assert len(calls) == 2
    assert sink.summary == {"rows": ROWS}


def test_a_sink_in_memory_resumes_and_does_rows_again(manifest, cache, prompts, schema):
    sink = MemorySink(manifest)
    with sink.start({"model": "mine"}):
        sink.write(next(scored(cache, prompts, schema)))
        assert sink.audit().missing == 3
        write_tables(sink, scored(cache, prompts, schema, sink.committed().rows), 1)
        assert sink.drop(["model_error"]) == 1
        assert left_to_do(manifest, sink.committed())
        write_tables(sink, scored(cache, prompts, schema, sink.committed().rows), 1)
    assert sink.audit().passed


def test_rows_are_the_same_in_memory_and_on_disk(manifest, cache, prompts, schema, tmp_path):
    sink = MemorySink(manifest)
    output = Output(str(tmp_path / "o"), manifest, {})
    for place, config in ((sink, {"model": "mine"}), (output, {})):
        with place.start(config):
            write_tables(place, scored(cache, prompts, schema), 1)
    stored = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "o").glob("*.p*")))
    assert stored.replace_schema_metadata(None).equals(pa.concat_tables(sink.tables))


def test_a_failed_write_leaves_what_was_written_before(manifest, cache, prompts, schema):
    sink = MemorySink(manifest)
    with sink.start({"model": "mine"}):
        sink.write(next(scored(cache, prompts, schema)))
    with pytest.raises(InputError, match="was not started"):
        write_tables(sink, scored(cache, prompts, schema, sink.committed().rows), 1)
    assert len(sink.committed().rows) == 3


@pytest.fixture
def extended(manifest, cache, prompts, schema, tmp_path):
    """An output with a further column; returns its folder."""
    folder = str(tmp_path / "extended")
    full = schema_with(schema, [MARGIN])
    fingerprint = {"columns": [f"{one.name}: {one.type}" for one in full]}
    sink = SinkWithColumns(Output(folder, manifest, fingerprint), [MARGIN])
    with sink.start({}):
        write_tables(sink, scored(cache, prompts, schema), 1)
        sink.finish({"rows": ROWS})
    assert sink.audit().passed
    assert len(sink.committed().rows) == ROWS
    return folder


def test_a_column_from_outside_is_in_every_row(extended, tmp_path):
    table = pq.read_table(extended, schema=None)
    assert table.column_names[-1] == "certainty"
    score, certainty = (table.column(name).to_pylist() for name in ("score", "certainty"))
    assert certainty[-1] is None  # of the image without features
    np.testing.assert_allclose(certainty[:-1], np.abs(np.array(score[:-1]) - 0.5), atol=1e-7)
    document = json.loads((tmp_path / "extended/_run/fingerprint.json").read_text())
    assert document["columns"][-1] == "certainty: float"


def test_rows_without_the_column_do_not_mix(extended, manifest, schema):
    fingerprint = {"columns": [f"{one.name}: {one.type}" for one in schema]}
    with pytest.raises(InputError, match="the two don't mix"):
        Output(extended, manifest, fingerprint)


def test_verify_and_report_take_a_column_from_outside(extended, tmp_path, capsys):
    assert main(["verify", "--scores", extended, "--manifest", str(tmp_path / "m.parquet")]) == 0
    assert "none missing, none twice" in capsys.readouterr().out
    page = tmp_path / "page.html"
    options = ["--scores", extended, "--output", str(page), "--thumbnails", "0"]
    assert main(["report", *options]) == 0
    assert "certainty" in page.read_text()


def test_rows_to_do_again_go_through_the_wrapper(extended, manifest, schema):
    full = schema_with(schema, [MARGIN])
    fingerprint = {"columns": [f"{one.name}: {one.type}" for one in full]}
    sink = SinkWithColumns(Output(extended, manifest, fingerprint), [MARGIN])
    with sink.start({}):
        sink.note_damaged(["m.parquet"])
        assert sink.drop(["model_error"]) == 1
    assert len(sink.committed().rows) == ROWS - 1
