"""Tests of iqa_core/tables/part_encoding.py."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.columns import EMBEDDING, VIEWS
from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.part_encoding import write_options

ROWS = 20


def chunks_of(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **(write_options(table.schema) | options))
    metadata = pq.ParquetFile(buffer).metadata
    group = metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    return {column.path_in_schema: column for column in columns}, metadata.num_row_groups


def a_table():
    pairs = pa.StructArray.from_arrays(
        [pa.array(np.ones(ROWS, np.float32))] * 2, names=["sharp.ness", "b"]
    )
    kept = {
        "tags": pa.array([["a", "b"]] * ROWS),
        "map": pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        "nested": pa.array([[{"x": [1, 2]}]] * ROWS),
        "mos": pa.array(range(ROWS)),
    }
    features = feature_column(np.ones((ROWS, 8), np.float32))
    levels = pa.array([[1, 2]] * ROWS, pa.list_(pa.int8(), 2))
    return pa.table({"scores": pairs, **kept, EMBEDDING: features, VIEWS: features,
                     "view_levels": levels})  # fmt: skip


def test_all_but_features_is_compressed():
    table = a_table()
    columns, _ = chunks_of(table)
    plain = {path for path, chunk in columns.items() if chunk.compression == "UNCOMPRESSED"}
    assert plain == {
        "embedding.list.element",
        "views.list.element",
        "view_levels.list.element",
    }
    assert {chunk.compression for path, chunk in columns.items() if path not in plain} == {"ZSTD"}
    assert not any(columns[path].has_dictionary_page for path in plain)
    assert columns["mos"].has_dictionary_page
    assert columns["mos"].is_stats_set


def test_what_repeats_has_a_dictionary():
    own = {"manifest_file": ["m"] * ROWS, "manifest_row": range(ROWS), "uri": ["u"] * ROWS}
    table = a_table().append_column("noise", pa.array(np.zeros(ROWS, np.float16)))
    for name, values in own.items():
        table = table.append_column(name, pa.array(values))
    columns, _ = chunks_of(table)
    with_dictionary = {path for path, chunk in columns.items() if chunk.has_dictionary_page}
    assert with_dictionary == {
        "manifest_file",
        "map.key_value.key",
        "map.key_value.value",
        "mos",
        "nested.list.element.x.list.element",
        "tags.list.element",
    }


def test_scores_are_written_in_little_more_than_their_bytes():
    rows = 100_000
    scores = np.random.default_rng(0).random(rows, np.float32)
    columns, _ = chunks_of(pa.table({"score": scores, "manifest_row": np.arange(rows)}))
    assert columns["score"].total_compressed_size < 4.1 * rows
    assert columns["manifest_row"].total_compressed_size < 4 * rows


def test_row_groups_of_features_are_small():
    features = feature_column(np.ones((5000, 4096), np.float32))
    columns, groups = chunks_of(pa.table({EMBEDDING: features}))
    assert groups == 3
    assert columns["embedding.list.element"].total_compressed_size < 18 * 2**20
    assert write_options(pa.schema([("score", pa.float32())]))["row_group_size"] == 2**20


def test_what_is_written_is_read_back():
    table = a_table()
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **write_options(table.schema))
    assert pq.read_table(buffer).equals(table)
