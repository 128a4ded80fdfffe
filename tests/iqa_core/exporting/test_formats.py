"""Tests of iqa_core/exporting: each export read back by its own library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.exporting.formats import FORMATS, export
from iqa_core.exporting.source import FinishedOutput
from iqa_core.exporting.target import new_file, new_folder
from iqa_core.exporting.types import flattened, table_format_schema
from iqa_core.fetch.fetcher import Fetcher
from tests.iqa_core.exporting.outputs import table_of, write_images, write_output

ROOT = Path(__file__).parents[3]
COUNT = 60


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    found = write_output(folder, COUNT)
    write_images(folder, COUNT)
    return found


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A catalogue of Iceberg in a file; PyIceberg reads its configuration once a process."""
    folder = tmp_path_factory.mktemp("iceberg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYICEBERG_CATALOG__PROD__TYPE", "sql")
        patch.setenv("PYICEBERG_CATALOG__PROD__URI", f"sqlite:///{folder}/catalog.db")
        patch.setenv("PYICEBERG_CATALOG__PROD__WAREHOUSE", f"file://{folder}/warehouse")
        found = pytest.importorskip("pyiceberg.catalog").load_catalog("prod")
        found.create_namespace("images")
        yield found
        found.close()


def library(name):
    return pytest.importorskip(FORMATS[name].library)


def exported(scores, name, target, **options):
    fetcher = Fetcher(str(scores.parent))
    return export(FinishedOutput(str(scores)), name, str(target), fetcher=fetcher, **options)


def sorted_rows(table):
    return table.combine_chunks().sort_by("manifest_row").replace_schema_metadata(None)


@pytest.mark.parametrize("target", ["scores.parquet", "folder"])
def test_parquet(scores, tmp_path, target):
    assert exported(scores, "parquet", tmp_path / target) == []
    files = (
        [tmp_path / target] if target.endswith(".parquet") else (tmp_path / target).glob("*.pa*")
    )
    [file] = files
    table = pq.read_table(file)
    assert sorted_rows(table).equals(table_of(scores))
    source = json.loads(table.schema.metadata[b"iqa.export"])
    assert source["fingerprint"] == {"model": "tiny", "prompts": "p" * 64}
    assert source["statuses"] == {"ok": 54, "not_found": 6}
    assert [path.name for path in tmp_path.iterdir()] == [target]


def test_csv(scores, tmp_path):
    notes = exported(scores, "csv", tmp_path / "scores.csv")
    assert notes[1] == "left out, as CSV has no lists or bytes: embedding"
    frame = pd.read_csv(tmp_path / "scores.csv").sort_values("manifest_row", ignore_index=True)
    wanted = table_of(scores).drop_columns(["embedding"]).flatten().to_pandas()
    pd.testing.assert_frame_equal(frame, wanted, check_dtype=False, check_exact=False, rtol=1e-6)
    assert json.loads((tmp_path / "scores.csv.json").read_text())["rows"] == COUNT


def test_csv_of_structs_within_structs():
    inner = {"status": "ok", "scores": {"noise": 0.5}}
    table = flattened(pa.table({"a": [1], "clip": [inner]}))
    assert table.to_pylist() == [{"a": 1, "clip.status": "ok", "clip.scores.noise": 0.5}]


def write_while_another_does(kind, target):
    opened = new_file(str(target)) if kind == "file" else new_folder(str(target), {})
    with opened as new:
        if kind == "file":
            new.write(b"ours")
        target.write_text("theirs")


@pytest.mark.parametrize("links", [True, False])
def test_what_was_made_meanwhile_is_kept(tmp_path, monkeypatch, links):
    if not links:  # as on some network disks
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    for name in ("file", "folder"):
        target = tmp_path / name
        with pytest.raises(InputError, match="was made by something else meanwhile"):
            write_while_another_does(name, target)
        assert target.read_text() == "theirs"
    with new_file(str(tmp_path / "new")) as new:
        new.write(b"ours")
    assert (tmp_path / "new").read_bytes() == b"ours"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "new"]


def test_hf(scores, tmp_path):
    datasets = library("hf")
    exported(scores, "hf", tmp_path / "set")
    found = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    table = sorted_rows(found["train"].data.table)
    assert table.to_pylist() == table_of(scores).to_pylist()
    card = (tmp_path / "set/README.md").read_text()
    assert '"prompts": "pppp' in card
    assert "| `ok` | 54 |" in card


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its reader's files
def test_webdataset(scores, tmp_path):
    webdataset = library("webdataset")
    notes = exported(scores, "webdataset", tmp_path / "set")
    assert notes == ["54 images in 1 shards; left out: 6 not scored"]
    shards = [str(path) for path in (tmp_path / "set").glob("*.tar")]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    wanted = {row["uri"]: row for row in table_of(scores).drop_columns(["embedding"]).to_pylist()}
    assert len(samples) == 54
    for sample in samples:
        row = json.loads(sample["json"])
        assert row == wanted[row["uri"]]
        assert sample["png"] == (scores.parent / row["uri"]).read_bytes()
    assert json.loads((tmp_path / "set/_export.json").read_text())["samples"] == 54


def test_webdataset_says_which_images_are_gone(tmp_path):
    library("webdataset")
    scores = write_output(tmp_path, COUNT)
    write_images(tmp_path, 20)
    notes = exported(scores, "webdataset", tmp_path / "set")
    assert notes == ["18 images in 1 shards; left out: 36 not fetched (not_found), 6 not scored"]
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"no image to write \(54 not fetched \(not_found\), 6"):
        exported(scores, "webdataset", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_lance(scores, tmp_path):
    lance = library("lance")
    target = tmp_path / "set.lance"
    exported(scores, "lance", target)
    found = lance.dataset(str(target))
    assert sorted_rows(found.to_table()).equals(table_of(scores))
    assert json.loads(found.schema.metadata[b"iqa.fingerprint"])["model"] == "tiny"
    refused(scores, "lance", target)
    exported(scores, "lance", target, append=True)
    assert lance.dataset(str(target)).count_rows() == 2 * COUNT


def test_delta(scores, tmp_path):
    deltalake = library("delta")
    target = tmp_path / "table"
    exported(scores, "delta", target)
    found = deltalake.DeltaTable(str(target))
    assert plain(found.to_pyarrow_table()) == plain(table_of(scores))
    assert json.loads(found.history()[0]["iqa.fingerprint"])["model"] == "tiny"
    refused(scores, "delta", target)
    exported(scores, "delta", target, append=True)
    found = deltalake.DeltaTable(str(target))
    assert (found.version(), len(found.to_pyarrow_table())) == (1, 2 * COUNT)


def test_iceberg(scores, catalog):
    library("iceberg")
    exported(scores, "iceberg", "prod.images.scores")
    table = catalog.load_table("images.scores")
    assert plain(table.scan().to_arrow()) == plain(table_of(scores))
    assert json.loads(table.properties["iqa.fingerprint"])["model"] == "tiny"
    refused(scores, "iceberg", "prod.images.scores")
    exported(scores, "iceberg", "prod.images.scores", append=True)
    assert len(catalog.load_table("images.scores").scan().to_arrow()) == 2 * COUNT


def plain(table):
    """Return rows whose types are those that table formats hold."""
    return sorted_rows(table.cast(table_format_schema(table.schema))).to_pylist()


def refused(scores, name, target):
    with pytest.raises(InputError, match="exists: give append, or another place"):
        exported(scores, name, target)


@pytest.mark.parametrize("name", ["parquet", "csv"])
def test_a_file_that_exists_is_refused(scores, tmp_path, name):
    target = tmp_path / f"x.{name}"
    target.write_text("mine")
    with pytest.raises(InputError, match=r"exists: remove it, or give another path"):
        exported(scores, name, target)
    assert target.read_text() == "mine"
    with pytest.raises(InputError, match=r"append is not for to .*, which has no atomic append"):
        exported(scores, name, tmp_path / "new", append=True)


def test_a_store_has_its_marker_last(scores):
    import fsspec

    exported(scores, "parquet", "memory://exports/set")
    fs = fsspec.filesystem("memory")
    names = sorted(path.rpartition("/")[2] for path in fs.find("/exports/set"))
    assert names == ["_export.json", "scores-00000.parquet"]
    fs.rm("/exports/set/_export.json")
    with pytest.raises(InputError, match=r"holds an unfinished export \(no _export.json\)"):
        exported(scores, "parquet", "memory://exports/set")
    exported(scores, "csv", "memory://exports/a.csv")
    assert fs.cat("/exports/a.csv").startswith(b'"manifest_file","manifest_row"')
    fs.rm("/exports", recursive=True)


def test_an_unfinished_output_is_refused(tmp_path):
    scores = write_output(tmp_path, COUNT, finished=False)
    with pytest.raises(InputError, match=r"is not finished \(60 rows in, 40 rows out: 20 missing"):
        FinishedOutput(str(scores))
    with pytest.raises(InputError, match=r"holds no part-\*.parquet of a run"):
        FinishedOutput(str(tmp_path))


def test_a_missing_library_is_one_line(scores, tmp_path, monkeypatch):
    monkeypatch.setattr("iqa_core.exporting.formats.find_spec", lambda name: None)
    with pytest.raises(InputError) as no:
        exported(scores, "lance", tmp_path / "x")
    wanted = (
        "--to lance needs the package lance, which is not installed: "
        "pip install 'distributed-iqa[lance]'"
    )
    assert no.value.on_command_line() == wanted


KILLED = """
    import os, signal, sys
    import iqa_core.exporting.tables
    from iqa_core.exporting.formats import export
    from iqa_core.exporting.source import FinishedOutput
    from iqa_core.fetch.fetcher import Fetcher

    scores, name, target = sys.argv[1:]
    iqa_core.exporting.tables._APPEND_BYTES = 1  # so that Iceberg has a part of the rows
    done = []

    def on_rows(count):
        done.append(count)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    export(FinishedOutput(scores), name, target, fetcher=Fetcher(scores + "/.."), on_rows=on_rows)
"""


def looks_whole(name, target, request):
    """Return whether a library or a reader takes what is there for an export."""
    if name == "lance":
        try:
            library(name).dataset(str(target))
        except ValueError:
            return False
        return True
    if name == "delta":
        return library(name).DeltaTable.is_deltatable(str(target))
    if name == "iceberg":
        return request.getfixturevalue("catalog").table_exists(target.partition(".")[2])
    return Path(target).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_export_leaves_nothing_that_looks_whole(scores, tmp_path, name, request):
    """Killed by SIGKILL between the second and the third part file; then it can be done again."""
    if FORMATS[name].library:
        library(name)
    target = str(tmp_path / "target")
    if name == "iceberg":
        request.getfixturevalue("catalog")
        target = "prod.images.killed"
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(scores), name, target]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert not looks_whole(name, target, request)
    exported(scores, name, target)
    assert looks_whole(name, target, request)
