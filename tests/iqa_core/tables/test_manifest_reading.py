"""Tests of tables/manifest_reading.py and manifest_source.py: bounded, linear, and through damage."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from pyroaring import BitMap

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import DamagedManifestError, read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices

ROOT = Path(__file__).parents[3]


def tables_of(manifest, keep=(), batch_rows=64, **options):
    for unit in plan_slices(manifest, RowSet()):
        yield from read_slice(
            manifest.folder, unit, keep, manifest.image_id_type, batch_rows, **options
        )


def covered(units):
    """Return the rows of units, and fail if two have the same."""
    rows = BitMap()
    for unit in units:
        wanted = BitMap.deserialize(unit.wanted)
        assert not rows & wanted
        rows |= wanted
    return rows


class TestPlanning:
    def test_small_row_groups_are_taken_together(self, tmp_path):
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"uri": ["a"] * 3000}), path, row_group_size=7)
        (unit,) = plan_slices(open_manifest(str(path)), RowSet())
        assert (unit.group, unit.stop_group, unit.first) == (0, 429, 0)

    @pytest.mark.parametrize("group", [1_000, 49_999, 50_000, 50_001, 120_000, 200_000])
    def test_units_have_50_000_rows_at_most(self, group, tmp_path):
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"uri": pa.nulls(170_003)}), path, row_group_size=group)
        units = list(plan_slices(open_manifest(str(path)), RowSet()))
        assert covered(units) == BitMap(range(170_003))
        assert max(len(BitMap.deserialize(unit.wanted)) for unit in units) <= 50_000
        assert len(units) <= 8
        for unit in units:
            rows = BitMap.deserialize(unit.wanted)
            assert unit.group * group == unit.first <= rows.min()
            assert rows.max() < unit.stop_group * group

    @pytest.mark.slow
    def test_embedded_images_make_smaller_units(self, tmp_path):
        path = tmp_path / "m.parquet"
        image = pa.array([bytes(3_000_000)] * 240)
        pq.write_table(pa.table({"image": image}), path, row_group_size=20, use_dictionary=False,
                       compression="zstd")  # fmt: skip
        units = list(plan_slices(open_manifest(str(path)), RowSet()))
        assert [(unit.group, unit.stop_group) for unit in units] == [(0, 4), (4, 8), (8, 12)]


class CountingFileSystem(LocalFileSystem):
    """Local files; counts what is read of them."""

    opened = 0
    read = 0

    def _open(self, path, mode="rb", block_size=None, **options):
        file = super()._open(path, mode, block_size=block_size, **options)
        read = file.read
        CountingFileSystem.opened += 1

        def counted(size=-1):
            data = read(size)
            CountingFileSystem.read += len(data)
            return data

        file.read = counted
        return file


def test_a_footer_is_read_once_however_many_row_groups_there_are(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    columns = {"uri": [str(n) for n in range(3000)]} | {c: [1.0] * 3000 for c in "abcdefgh"}
    pq.write_table(pa.table(columns), path, row_group_size=1)
    manifest = open_manifest(str(path))
    folder = replace(manifest.folder, fs=CountingFileSystem(skip_instance_cache=True))
    monkeypatch.setattr("iqa_core.tables.slices._ROWS_PER_SLICE", 500)
    units = list(plan_slices(manifest, RowSet()))
    assert len(units) == 6
    monkeypatch.setattr(CountingFileSystem, "opened", 0)
    monkeypatch.setattr(CountingFileSystem, "read", 0)
    rows = [row for unit in units for table in read_slice(folder, unit, (), pa.string(), 64)
            for row in table.column("uri").to_pylist()]  # fmt: skip
    assert rows == columns["uri"]
    assert CountingFileSystem.opened == len(units)
    assert CountingFileSystem.read < 1.2 * path.stat().st_size


def test_2000_groups_of_a_single_row_are_one_unit_and_one_footer(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    columns = {
        "uri": [f"images/{n:07}.jpg" for n in range(2000)],
        "image_id": [str(n) for n in range(2000)],
        **{name: [1.0] * 2000 for name in "abcd"},
    }
    pq.write_table(pa.table(columns), path, row_group_size=1)
    manifest = open_manifest(str(path))
    (unit,) = plan_slices(manifest, RowSet())
    folder = replace(manifest.folder, fs=CountingFileSystem(skip_instance_cache=True))
    monkeypatch.setattr(CountingFileSystem, "opened", 0)
    table = pa.concat_tables(read_slice(folder, unit, (), manifest.image_id_type, 128))
    assert table.select(["uri", "image_id"]).to_pydict() == {
        name: columns[name] for name in ("uri", "image_id")
    }
    assert CountingFileSystem.opened == 1


def test_rows_that_are_done_are_left_out_of_groups_of_all_kinds(tmp_path):
    path = tmp_path / "m.parquet"
    view = pa.array([str(n) for n in range(1000)], pa.string_view())
    pq.write_table(pa.table({"uri": view, "image_id": view}), path, row_group_size=90)
    manifest = open_manifest(str(path))
    left = sorted({*range(0, 1000, 7), *range(300, 420), 999})
    done = RowSet()
    numbers = [n for n in range(1000) if n not in left]
    done.add(pa.table({"manifest_file": ["m.parquet"] * len(numbers), "manifest_row": numbers}))
    (unit,) = plan_slices(manifest, done)
    tables = list(read_slice(manifest.folder, unit, (), pa.string(), 50))
    assert max(map(len, tables)) <= 50
    table = pa.concat_tables(tables)
    assert table.column("manifest_row").to_pylist() == left
    assert table.column("uri").to_pylist() == [str(n) for n in left]
    assert table.column("image_id").to_pylist() == [str(n) for n in left]


def megabytes_to_read(path, batch_rows):
    """Return by how much the peak memory of a new process grows when it reads a manifest."""
    code = """
import sys
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import read_slice
from iqa_core.tables.slices import plan_slices
from iqa_core.tables.rows import RowSet
from tests.memory import peak_megabytes
manifest = open_manifest(sys.argv[1])
before = peak_megabytes()
for unit in plan_slices(manifest, RowSet()):
    for table in read_slice(manifest.folder, unit, (), manifest.image_id_type, int(sys.argv[2])):
        pass
print(peak_megabytes() - before)
"""
    command = [sys.executable, "-c", code, path, str(batch_rows)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(run.stdout)


class TestBytes:
    def test_tables_are_bounded_in_bytes(self, tmp_path):
        # 4 MB each, but for one of 90 MB; as structs, in one row group and one batch.
        sizes = [4_000_000] * 30 + [90_000_000] + [4_000_000] * 9
        images = pa.array([{"bytes": bytes(size), "path": None} for size in sizes])
        pq.write_table(pa.table({"image": images}), tmp_path / "m.parquet", compression="zstd",
                       use_dictionary=False, write_batch_size=1)  # fmt: skip
        del images
        manifest = open_manifest(str(tmp_path / "m.parquet"))
        assert manifest.rows_within(2**27) == 21
        found, biggest = [], []
        for table in tables_of(manifest, batch_rows=128):
            found += [len(data.as_buffer()) for data in table.column("_data")]
            biggest.append(table.nbytes if len(table) > 1 else 0)
        assert found == sizes
        assert max(biggest) <= 2**26

    def test_a_value_that_a_dictionary_repeats_does_not_make_a_large_table(self, tmp_path):
        image = bytes(900_000)  # once in the file, for all 500 rows
        pq.write_table(pa.table({"image": pa.array([image] * 500)}), tmp_path / "m.parquet")
        assert (tmp_path / "m.parquet").stat().st_size < 2_000_000
        sizes = [
            t.nbytes for t in tables_of(open_manifest(str(tmp_path / "m.parquet")), batch_rows=500)
        ]
        assert sum(sizes) > 450_000_000
        assert max(sizes) <= 2**26

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_row_group(self, tmp_path):
        grown = []
        for rows in (100, 400):
            images = pa.array([{"bytes": os.urandom(2_000_000), "path": None}] * rows)
            path = tmp_path / f"{rows}.parquet"
            pq.write_table(pa.table({"image": images}), path, row_group_size=rows,
                           use_dictionary=False, write_batch_size=1)  # fmt: skip
            del images
            grown.append(megabytes_to_read(path, batch_rows=256))
        assert max(grown) < 400  # MB; the data of the second have 800

    @pytest.mark.slow
    def test_memory_stays_below_one_batch_of_rows(self, tmp_path):
        """A batch of the command line's default size is the whole file, 512 MB uncompressed."""
        path = tmp_path / "m.parquet"
        images = pa.array([os.urandom(4_000_000)] * 128, pa.large_binary())
        pq.write_table(pa.table({"image": images}), path, row_group_size=128, compression="none",
                       use_dictionary=False, write_batch_size=4, store_schema=False)  # fmt: skip
        del images
        assert megabytes_to_read(path, batch_rows=128) < 400

    @pytest.mark.slow
    def test_more_than_2_gib_in_neighbouring_rows_of_a_group_of_small_ones(self, tmp_path):
        sizes = [10] * 5000 + [1_100_000_000] * 2 + [10] * 3
        assert sizes_read(tmp_path / "m.parquet", sizes, write_batch_size=1) == sizes

    @pytest.mark.slow
    def test_more_than_2_gib_in_a_batch_of_large_images(self, tmp_path):
        """Each of 17.5 MB: 128 rows, a batch, are beyond what 32-bit offsets count."""
        sizes = [17_500_000] * 130
        assert sizes_read(tmp_path / "m.parquet", sizes, write_batch_size=8) == sizes


def sizes_read(path, sizes, write_batch_size):
    """Write structs of images of these sizes in one row group; return the sizes read again."""
    import psutil

    if psutil.virtual_memory().available < 10 * 2**30:
        pytest.skip("needs 10 GB of memory")
    contents = {size: bytes(size) for size in set(sizes)}
    data = pa.array([contents[size] for size in sizes], pa.large_binary())
    paths = pa.array([f"{number}.png" for number in range(len(sizes))])
    images = pa.StructArray.from_arrays([data, paths], names=["bytes", "path"])
    # Without the Arrow schema, as others write: the bytes are read as 32-bit `binary`.
    pq.write_table(pa.table({"image": images}), path, compression="zstd", use_dictionary=False,
                   write_batch_size=write_batch_size, store_schema=False)  # fmt: skip
    del contents, data, images
    assert pq.ParquetFile(path).num_row_groups == 1
    return [
        len(data.as_buffer())
        for table in tables_of(open_manifest(str(path)), batch_rows=128)
        for data in table.column("_data")
    ]


def damage(path, group, column, *, start=-40, stop=-4):
    """Change bytes of a column chunk, counted from its end."""
    chunk = pq.read_metadata(path).row_group(group).column(column)
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    end = first + chunk.total_compressed_size
    data = bytearray(path.read_bytes())
    for place in range(end + start, end + stop):
        data[place] ^= 0xA5
    path.write_bytes(data)


class TestDamage:
    @pytest.fixture
    def path(self, tmp_path):
        """A file of 500 rows in 5 groups, of which the fourth is damaged in its column `kind`."""
        path = tmp_path / "m.parquet"
        columns = {"uri": [f"{n}.jpg" for n in range(500)], "kind": [f"k{n}" for n in range(500)]}
        pq.write_table(pa.table(columns), path, row_group_size=100, write_page_checksum=True)
        damage(path, 3, 1)
        return path

    def test_is_known_by_file_and_row_group(self, path):
        manifest = open_manifest(str(path), ["kind"])
        with pytest.raises(DamagedManifestError) as raised:
            list(tables_of(manifest, ["kind"]))
        message = str(raised.value)
        assert message.startswith(
            f"{path}, row group 3 (rows 300 to 399): the data can't be read ("
        )
        assert message.endswith("): restore the file, or add skip_damaged to score the rest")
        assert "\n" not in message
        again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own
        assert (str(again), again.file) == (message, "m.parquet")

    def test_a_damaged_column_that_is_not_wanted_costs_nothing(self, path):
        assert sum(map(len, tables_of(open_manifest(str(path))))) == 500

    def test_can_be_skipped(self, path):
        manifest = open_manifest(str(path), ["kind"])
        tables = list(tables_of(manifest, ["kind"], 30, skip_damaged=True))
        assert max(map(len, tables)) <= 30
        rows = pa.concat_tables(tables).to_pylist()
        assert [row["manifest_row"] for row in rows] == list(range(500))
        lost = {row["manifest_row"] for row in rows if row["_read_error"]}
        assert lost == set(range(300, 400))
        for row in rows:
            number = row["manifest_row"]
            expected = (None, None) if number in lost else (f"{number}.jpg", f"k{number}")
            assert (row["uri"], row["kind"]) == expected
        assert rows[300]["_read_error"].startswith("row group 3 (rows 300 to 399) of the manifest")

    def test_only_wanted_rows_are_lost(self, path):
        manifest = open_manifest(str(path), ["kind"])
        done = RowSet()
        done.add(pa.table({"manifest_file": ["m.parquet"] * 390, "manifest_row": range(390)}))
        (unit,) = plan_slices(manifest, done)
        (lost, rest) = read_slice(
            manifest.folder, unit, ["kind"], pa.string(), 100, skip_damaged=True
        )
        assert lost.column("manifest_row").to_pylist() == list(range(390, 400))
        assert rest.column("manifest_row").to_pylist() == list(range(400, 500))
        assert rest.schema == lost.schema

    def test_rows_before_a_damaged_page_are_read(self, tmp_path):
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"image": [os.urandom(50_000) for _ in range(60)]}), path,
                       use_dictionary=False, write_batch_size=1, data_page_size=1,
                       write_page_checksum=True)  # fmt: skip
        damage(path, 0, 0, start=-10_000, stop=-9_000)  # in the last image
        rows = pa.concat_tables(tables_of(open_manifest(str(path)), skip_damaged=True)).to_pylist()
        lost = [row["manifest_row"] for row in rows if row["_read_error"]]
        assert lost[-1] == 59
        assert 1 <= len(lost) <= 16
        assert all(row["_data"] for row in rows if not row["_read_error"])

    def test_a_page_without_a_checksum_beside_a_sound_file(self, tmp_path):
        """Writers leave checksums out by default: the reader itself must notice it."""
        (tmp_path / "m").mkdir()
        pq.write_table(pa.table({"uri": [f"{n}.jpg" for n in range(6)]}), tmp_path / "m/a.parquet")
        path = tmp_path / "m/broken.parquet"
        uris = [f"photos/{n}-{'x' * 50}.jpg" for n in range(1200)]
        pq.write_table(pa.table({"uri": uris}), path, compression="zstd", use_dictionary=False)
        data = bytearray(path.read_bytes())
        data[60:200] = bytes(byte ^ 0x5A for byte in data[60:200])
        path.write_bytes(data)
        manifest = open_manifest(str(tmp_path / "m"))
        assert manifest.rows == 1206
        with pytest.raises(DamagedManifestError) as raised:
            list(tables_of(manifest))
        message = str(raised.value)
        assert message.startswith(
            f"{path}, row group 0 (rows 0 to 1,199): the data can't be read ("
        )
        assert "\n" not in message
        rows = pa.concat_tables(tables_of(manifest, skip_damaged=True)).to_pylist()
        lost = {row["manifest_file"] for row in rows if row["_read_error"]}
        assert (len(rows), lost) == (1206, {"broken.parquet"})

    @pytest.mark.parametrize("compression", ["none", "zstd", "snappy", "gzip"])
    def test_a_cut_or_zeroed_group(self, compression, tmp_path):
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"uri": [f"{n:040}" for n in range(300)]}), path,
                       row_group_size=100, compression=compression)  # fmt: skip
        chunk = pq.read_metadata(path).row_group(1).column(0)
        data = bytearray(path.read_bytes())
        first, size = chunk.dictionary_page_offset, chunk.total_compressed_size
        data[first : first + size] = bytes(size)
        path.write_bytes(data)
        manifest = open_manifest(str(path))
        with pytest.raises(InputError, match=r"row group 1 \(rows 100 to 199\)"):
            list(tables_of(manifest))
        rows = pa.concat_tables(tables_of(manifest, skip_damaged=True)).to_pylist()
        assert [bool(row["_read_error"]) for row in rows] == [False] * 100 + [True] * 100 + [
            False
        ] * 100


class TestChanges:
    @pytest.fixture
    def opened(self, tmp_path):
        """A manifest that has been opened and planned for."""
        pq.write_table(pa.table({"uri": list("abcdef")}), tmp_path / "m.parquet")
        manifest = open_manifest(str(tmp_path / "m.parquet"))
        return manifest, list(plan_slices(manifest, RowSet()))

    def read(self, opened):
        manifest, units = opened
        return [t for unit in units for t in read_slice(manifest.folder, unit, (), pa.string(), 2)]

    def test_a_file_that_went_away(self, opened, tmp_path):
        (tmp_path / "m.parquet").unlink()
        text = (
            r"m\.parquet was removed while it was read: restore it, then the same command resumes$"
        )
        with pytest.raises(InputError, match=text):
            self.read(opened)

    @pytest.mark.parametrize("uris", ["fedcba", "abcdefg"])
    def test_a_file_that_was_replaced(self, uris, opened, tmp_path):
        time.sleep(0.01)
        pq.write_table(pa.table({"uri": list(uris)}), tmp_path / "m.parquet")
        with pytest.raises(InputError, match=r"m\.parquet was replaced while it was read: restore"):
            self.read(opened)

    def test_a_file_that_was_replaced_by_something_else(self, opened, tmp_path):
        time.sleep(0.01)
        (tmp_path / "m.parquet").write_text("no Parquet")
        with pytest.raises(InputError, match=r"m\.parquet was replaced while it was read: restore"):
            self.read(opened)

    def test_a_file_that_is_replaced_meanwhile(self, opened, tmp_path):
        manifest, (unit,) = opened
        tables = read_slice(manifest.folder, unit, (), pa.string(), 2)
        next(tables)
        time.sleep(0.01)
        pq.write_table(pa.table({"uri": list("uvwxyz")}), tmp_path / "m.parquet")
        with pytest.raises(InputError, match=r"m\.parquet was replaced while it was read: restore"):
            list(tables)

    def test_a_copy_with_another_time_is_the_same_file(self, opened, tmp_path):
        os.utime(tmp_path / "m.parquet", (0, 0))
        assert sum(map(len, self.read(opened))) == 6


class UnsteadyFileSystem(MemoryFileSystem):
    """A store of which some reads fail."""

    store = {}  # noqa: RUF012 - as the base class has it
    pseudo_dirs = [""]  # noqa: RUF012
    failing = 0

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        data = file.getvalue() if mode == "rb" else b""

        class Unsteady(type(file)):
            def read(self, size=-1):
                if UnsteadyFileSystem.failing:
                    UnsteadyFileSystem.failing -= 1
                    raise ConnectionResetError("connection reset by peer")
                return super().read(size)

        return Unsteady(self, path, data) if mode == "rb" else file


class TestStores:
    @pytest.fixture
    def opened(self, tmp_path, monkeypatch):
        table = pa.table({"uri": [str(n) for n in range(1000)]})
        pq.write_table(table, tmp_path / "m", row_group_size=200)
        fs = UnsteadyFileSystem(skip_instance_cache=True)
        fs.pipe_file("/unsteady/m", (tmp_path / "m").read_bytes())
        fsspec.filesystem("memory").pipe_file("/unsteady/m", (tmp_path / "m").read_bytes())
        manifest = open_manifest("memory://unsteady/m")
        (unit,) = plan_slices(manifest, RowSet())
        monkeypatch.setattr("iqa_core.tables.manifest_source.time.sleep", lambda _: None)
        yield replace(manifest.folder, fs=fs), unit
        UnsteadyFileSystem.failing = 0

    def test_failures_that_pass_cost_no_row(self, opened):
        tables = read_slice(*opened, (), pa.string(), 50)
        uris = []
        for table in tables:
            uris += table.column("uri").to_pylist()
            UnsteadyFileSystem.failing = 3
        assert uris == [str(n) for n in range(1000)]

    @pytest.mark.parametrize("skip", [False, True])
    def test_failures_that_stay_are_no_damage(self, skip, opened):
        tables = read_slice(*opened, (), pa.string(), 50, skip_damaged=skip)
        next(tables)
        UnsteadyFileSystem.failing = 10**6
        with pytest.raises(
            InputError, match=r"unsteady/m can't be read \(connection reset"
        ) as raised:
            list(tables)
        assert not isinstance(raised.value, DamagedManifestError)
