"""Tests of iqa_core/tables/parts.py: one reader of part files, on disks and on unsteady stores."""

from __future__ import annotations

import json
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.storage.retry import RetryPolicy
from iqa_core.tables.part_content import Depth, PartContent
from iqa_core.tables.parts import PartFiles

TABLE = pa.table(
    {
        "manifest_file": ["a"] * 6,
        "manifest_row": pa.array(range(6), pa.int64()),
        "status": ["ok", "ok", "empty", "ok", "ok", "timeout"],
        "score": [0.1, 0.2, None, 0.3, 0.4, None],
    }
)


def write(path, metadata=None):
    table = TABLE.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=4, write_page_checksum=True)


@pytest.fixture
def parts(tmp_path):
    write(tmp_path / "part-1.parquet", PartContent.of("", TABLE, "print").metadata())
    write(tmp_path / "part-0.parquet")
    (tmp_path / "_run").mkdir()
    write(tmp_path / "other.parquet")
    return PartFiles(Folder.of(str(tmp_path)), "scores O", "restore it")


def test_only_part_files_are_listed(parts):
    assert parts.names() == ["part-0.parquet", "part-1.parquet"]
    assert list(parts.stamps()) == parts.names()


def test_schemas_come_without_metadata(parts):
    schema = parts.schema("part-1.parquet")
    assert schema.names == TABLE.column_names
    assert schema.metadata is None


def test_tables_are_read_by_row_group(parts):
    tables = list(parts.tables(["manifest_row", "score"]))
    assert [len(table) for table in tables] == [4, 2, 4, 2]
    assert tables[0].column_names == ["manifest_row", "score"]
    assert [len(table) for table in parts.tables(names=["part-1.parquet"])] == [4, 2]


def test_one_part_is_read_whole(parts):
    assert parts.read("part-0.parquet").replace_schema_metadata(None).equals(TABLE)
    assert parts.read("part-0.parquet", ["score"]).column_names == ["score"]


def test_a_dataset_of_all_parts(parts):
    assert parts.dataset(parts.names()).count_rows() == 12


@pytest.mark.parametrize("depth", Depth)
@pytest.mark.parametrize(
    ("name", "fingerprint"), [("part-0.parquet", None), ("part-1.parquet", "print")]
)
def test_identities_and_statuses(name, fingerprint, depth, parts):
    content = parts.content(name, depth)
    assert content.name == name
    assert content.rows.files() == {"a"}
    assert list(content.rows.rows("a")) == list(range(6))
    assert content.statuses == {"ok": 4, "empty": 1, "timeout": 1}
    assert content.fingerprint == fingerprint


def test_statuses_that_do_not_add_up_are_counted_again(parts, tmp_path):
    wrong = {b"iqa": json.dumps({"statuses": {"ok": 3}}).encode()}
    write(tmp_path / "part-0.parquet", wrong)
    assert parts.content("part-0.parquet").statuses == {"ok": 4, "empty": 1, "timeout": 1}


@pytest.mark.parametrize(
    "read",
    [
        lambda parts: parts.schema("part-0.parquet"),
        lambda parts: parts.read("part-0.parquet"),
        lambda parts: list(parts.tables()),
        lambda parts: parts.content("part-0.parquet"),
        lambda parts: parts.dataset(parts.names()),
    ],
)
def test_what_cannot_be_read_is_named(read, parts, tmp_path):
    (tmp_path / "part-0.parquet").write_bytes(b"no Parquet at all")
    text = r"part file part-0\.parquet of scores O can't be read \(.*\): restore it"
    with pytest.raises(InputError, match=text):
        read(parts)


def test_what_goes_away_is_named(parts, tmp_path):
    names = parts.names()
    (tmp_path / "part-1.parquet").unlink()
    with pytest.raises(InputError, match=r"part-1\.parquet of scores O was removed while"):
        list(parts.tables(names=names))


def test_a_part_file_without_identities_is_named(parts, tmp_path):
    pq.write_table(TABLE.drop_columns(["manifest_row"]), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match=r"part-0\.parquet of .* can't be read \(.*manifest_row"):
        parts.content("part-0.parquet")


class UnsteadyFileSystem(MemoryFileSystem):
    """Memory whose files fail some times when they are opened."""

    protocol = "unsteady-parts"
    failing = 0

    def _open(self, path, *args, **kwargs):
        if UnsteadyFileSystem.failing:
            UnsteadyFileSystem.failing -= 1
            raise RuntimeError("connection reset")
        return super()._open(path, *args, **kwargs)


@pytest.fixture
def unsteady(parts, tmp_path, monkeypatch):
    """The same part files on a store that can be made to fail."""
    monkeypatch.setattr(RetryPolicy, "wait_after", lambda *_: 0.0)
    memory = fsspec.filesystem("memory")
    for name in parts.names():
        memory.pipe_file(f"/unsteady-parts/{name}", (tmp_path / name).read_bytes())
    folder = Folder("memory://unsteady-parts", UnsteadyFileSystem(), "/unsteady-parts")
    yield replace(parts, folder=folder)
    UnsteadyFileSystem.failing = 0
    memory.rm("/unsteady-parts", recursive=True)


def test_failures_of_a_store_that_pass_cost_nothing(unsteady):
    rows = []
    for table in unsteady.tables(["manifest_row"]):
        rows += table.column("manifest_row").to_pylist()
        UnsteadyFileSystem.failing = 2
    assert rows == [*range(6), *range(6)]


def test_failures_of_a_store_that_stay_are_one_line(unsteady):
    UnsteadyFileSystem.failing = 100
    with pytest.raises(InputError, match="RuntimeError: connection reset"):
        list(unsteady.tables(["manifest_row"]))
    assert UnsteadyFileSystem.failing == 95
