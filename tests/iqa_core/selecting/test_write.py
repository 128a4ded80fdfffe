"""The manifest of a selection: whole or not at all."""

from __future__ import annotations

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.selecting.write import ManifestTarget
from iqa_core.tables.manifest import open_manifest


def tables(*sizes):
    start = 0
    for size in sizes:
        numbers = range(start, start + size)
        yield pa.table({"uri": [f"{i}.jpg" for i in numbers], "n": pa.array(numbers, pa.int64())})
        start += size


def test_one_file_with_facts(tmp_path):
    target = ManifestTarget.of(str(tmp_path / "new/m.parquet"))
    assert target.write(tables(70_000, 1, 60_000), {"why": "x"}) == 130_001
    file = pq.ParquetFile(tmp_path / "new/m.parquet")
    assert file.read()["n"].to_pylist() == list(range(130_001))
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [50_000, 50_000, 30_001]
    assert json.loads(file.schema_arrow.metadata[b"iqa"]) == {"why": "x"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.parquet"]


def test_a_folder_of_files(tmp_path):
    target = ManifestTarget.of(str(tmp_path / "m"), 1000)
    assert target.folder.root == str(tmp_path / "m")
    assert target.write(tables(700, 700, 1100), {}) == 2500
    manifest = open_manifest(str(tmp_path / "m"))
    assert [file.rows for file in manifest.files] == [1000, 1000, 500]
    whole = pq.read_table(tmp_path / "m")
    assert whole["n"].to_pylist() == list(range(2500))


def test_another_number_of_rows_than_was_counted(tmp_path):
    target = ManifestTarget.of(str(tmp_path / "m.parquet"))
    with pytest.raises(InputError, match=r"3 rows came, but 4 were counted: .* random\(\)"):
        target.write(tables(3), {}, 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows_per_file", [None, 50_000])
def test_nothing_is_there_until_all_of_it_is(tmp_path, rows_per_file):
    target = ManifestTarget.of(str(tmp_path / "m.parquet"), rows_per_file)

    def broken():
        yield from tables(250_000)
        assert not (tmp_path / "m.parquet").exists()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        target.write(broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused_at_the_start_and_at_the_end(tmp_path):
    target = ManifestTarget.of(str(tmp_path / "m.parquet"))
    (tmp_path / "m.parquet").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        target.write(tables(3), {})
    with pytest.raises(InputError, match="exists already"):
        ManifestTarget.of(str(tmp_path / "m.parquet"))
    assert (tmp_path / "m.parquet").read_text() == "mine"


def test_on_a_store(tmp_path):
    fs = fsspec.filesystem("memory")
    target = ManifestTarget.of("memory://select-box/m.parquet")
    assert target.write(tables(5), {}) == 5
    with fs.open("memory://select-box/m.parquet") as file:
        assert pq.read_table(file)["n"].to_pylist() == list(range(5))
    with pytest.raises(InputError, match="exists already"):
        ManifestTarget.of("memory://select-box/m.parquet")
    with pytest.raises(InputError, match="rows_per_file needs a local output"):
        ManifestTarget.of("memory://select-box/m", 10)
    fs.rm("memory://select-box", recursive=True)


def test_a_name_without_a_suffix(tmp_path):
    with pytest.raises(InputError, match=r"must be a \.parquet file"):
        ManifestTarget.of(str(tmp_path / "m"))
