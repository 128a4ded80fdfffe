"""Tests of jobs/planning/sample.py: which rows are drawn."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyroaring import BitMap

from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.rows import RowSet
from jobs.planning.sample import SamplePlan, sample_slices


def drawn(slices):
    """Return (file, row) of each row, and check that none is drawn twice."""
    rows = [(each.file, row) for each in slices for row in BitMap.deserialize(each.wanted)]
    assert len(rows) == len(set(rows))
    return rows


def write(folder, files, rows, group=50):
    for number in range(files):
        table = pa.table({"uri": [f"{row}.jpg" for row in range(rows)]})
        pq.write_table(table, folder / f"{number:03d}.parquet", row_group_size=group)
    return open_manifest(str(folder))


def test_rows_of_the_whole_manifest(tmp_path):
    manifest = write(tmp_path, 3, 1000)
    rows = drawn(sample_slices(manifest, RowSet(), 300, 0))
    assert len(rows) == 300
    for file in manifest.files:
        numbers = [row for name, row in rows if name == file.name]
        assert 50 < len(numbers) < 150
        assert min(numbers) < 100 < 900 < max(numbers)


def test_the_seed_decides(tmp_path):
    manifest = write(tmp_path, 2, 500)
    first = drawn(sample_slices(manifest, RowSet(), 50, 1))
    assert drawn(sample_slices(manifest, RowSet(), 50, 1)) == first
    assert drawn(sample_slices(manifest, RowSet(), 50, 2)) != first


def test_only_rows_that_are_not_done(tmp_path):
    manifest = write(tmp_path, 1, 100)
    done = RowSet()
    done.add(pa.table({"manifest_file": ["000.parquet"] * 90, "manifest_row": range(90)}))
    plan = SamplePlan.draw(manifest, (), done, 5, 0)
    assert plan.rows == 5
    assert {row for _, row in drawn(plan.slices)} <= set(range(90, 100))
    assert plan.without(done) is plan
    assert SamplePlan.draw(manifest, (), done, 500, 0).rows == 10


def test_few_files_are_read_of_many(tmp_path):
    manifest = write(tmp_path, 100, 30)
    slices = sample_slices(manifest, RowSet(), 640, 0)
    assert len(drawn(slices)) == 640
    assert len(slices) <= 64
    assert len({each.file for each in slices}) > 30


def test_more_files_where_they_are_small(tmp_path):
    manifest = write(tmp_path, 150, 2)
    assert len(drawn(sample_slices(manifest, RowSet(), 200, 0))) == 200


def test_inline_images_are_adjacent_rows(tmp_path):
    table = pa.table({"image": [b"x"] * 2000})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=64)
    slices = sample_slices(open_manifest(str(tmp_path / "m.parquet")), RowSet(), 128, 3)
    rows = sorted(row for _, row in drawn(slices))
    assert len(rows) == 128
    assert rows[0] > 0
    for each in slices:
        numbers = list(BitMap.deserialize(each.wanted))
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("number", [1, 99, 100, 101])
def test_the_number_of_rows(tmp_path, number):
    manifest = write(tmp_path, 1, 100)
    assert len(drawn(sample_slices(manifest, RowSet(), number, 0))) == min(number, 100)


def test_nothing_is_left(tmp_path):
    manifest = write(tmp_path, 1, 4)
    done = RowSet()
    done.add(pa.table({"manifest_file": ["000.parquet"] * 4, "manifest_row": range(4)}))
    assert sample_slices(manifest, done, 10, 0) == ()
