"""Tests of iqa_core/tables/column_sizes.py on a Parquet file's footer."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.column_sizes import column_bytes, group_bytes, leaves_of


@pytest.fixture
def metadata(tmp_path):
    images = [{"bytes": bytes(1000 * (row + 1)), "path": str(row)} for row in range(4)]
    table = pa.table({"uri": list("abcd"), "image": images, "image_id": [1, 2, 3, 4]})
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=2, **options)
    return pq.read_metadata(tmp_path / "m.parquet")


def test_leaves_are_all_that_is_in_a_column_and_no_other(metadata):
    assert leaves_of(metadata, ["image"]) == [1, 2]
    assert leaves_of(metadata, ["image.bytes", "uri"]) == [0, 1]
    assert leaves_of(metadata, ["imag", "none"]) == []


def test_bytes_of_each_row_group(metadata):
    first, second = column_bytes(metadata, ["image"])
    assert 3_000 < first < 3_200
    assert 7_000 < second < 7_200
    assert group_bytes(metadata, 1, leaves_of(metadata, ["image"])) == second
    assert column_bytes(metadata, ["none"]) == (0, 0)
