"""Tests of iqa_core/tables/plain_pages.py: the same lists as Arrow reads, or none."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.part_encoding import write_options
from iqa_core.tables.plain_pages import find_plain_chunk


def features(rows, width, null_share=0.0):
    rng = np.random.default_rng(rows)
    values = rng.normal(size=(rows, width)).astype(np.float32)
    values[rng.random(rows) < null_share] = np.nan
    return values


def written(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **(write_options(table.schema) | options))
    return buffer.getvalue()


def decoded(data):
    """Return the lists of all row groups, None where Arrow must read."""
    file = pq.ParquetFile(pa.BufferReader(data))
    found = []
    for group in range(file.num_row_groups):
        chunk = find_plain_chunk(file, group, "embedding")
        found.append(chunk and chunk.decode(data[chunk.offset : chunk.offset + chunk.size]))
    return found


def table_of(values):
    return pa.table({"n": pa.array(range(len(values))), "embedding": feature_column(values)})


@pytest.mark.parametrize("null_share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 3), (900, 64), (3000, 700), (40_000, 5)])
def test_lists_are_those_that_were_written(rows, width, null_share):
    values = features(rows, width, null_share)
    lists = np.concatenate(decoded(written(table_of(values))))
    assert lists.dtype == np.float16
    np.testing.assert_array_equal(lists, values.astype(np.float16))


@pytest.mark.parametrize("page", [100, 1000, 12_345])
@pytest.mark.parametrize("null_share", [0.0, 0.1])
def test_pages_of_any_size(page, null_share):
    values = features(500, 33, null_share)
    options = {"data_page_size": page, "row_group_size": 200, "write_batch_size": 7}
    lists = decoded(written(table_of(values), **options))
    assert [len(group) for group in lists] == [200, 200, 100]
    np.testing.assert_array_equal(np.concatenate(lists), values.astype(np.float16))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"use_dictionary": True},
        {
            "use_dictionary": False,
            "column_encoding": {"embedding.list.element": "BYTE_STREAM_SPLIT"},
        },
        {"data_page_version": "2.0"},
    ],
)
def test_other_layouts_are_left_to_arrow(options):
    assert decoded(written(table_of(features(50, 4)), **options)) == [None]


def test_other_types_are_left_to_arrow():
    values = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    lists = pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float16()))
    for column in (values, lists):
        assert decoded(written(pa.table({"embedding": column}))) == [None]


def test_null_values_within_a_list_are_left_to_arrow():
    column = pa.array([[1.0, None], [2.0, 3.0]], pa.list_(pa.float16(), 2))
    assert decoded(written(pa.table({"embedding": column}))) == [None]


@pytest.mark.parametrize("seed", range(20))
def test_damaged_pages_give_nothing_or_numbers_of_the_same_shape(seed):
    data = written(table_of(features(300, 16, 0.1)))
    file = pq.ParquetFile(pa.BufferReader(data))
    chunk = find_plain_chunk(file, 0, "embedding")
    damaged = bytearray(data[chunk.offset : chunk.offset + chunk.size])
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, 60, size=3):
        damaged[place] = rng.integers(256)
    lists = chunk.decode(bytes(damaged))
    assert lists is None or lists.shape == (300, 16)
    assert chunk.decode(bytes(damaged[: len(damaged) // 2])) is None
