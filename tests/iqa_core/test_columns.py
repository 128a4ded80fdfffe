"""Tests of iqa_core/columns.py: the table, and what comes from it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from iqa_core.columns import (
    COLUMNS,
    IDENTITY,
    OWN_NAMES,
    Contents,
    Kind,
    Reader,
    fields,
    markdown_table,
    names_of,
    required_by,
)

DOCUMENT = Path(__file__).parents[2] / "docs/output.md"


def described(contents):
    return [f"{field.name}: {field.type}" for field in fields(contents)]


def test_scored_rows_have_the_columns_of_version_0_1():
    assert described(Contents(pa.string(), pairs=("a", "b"))) == [
        "manifest_file: string",
        "manifest_row: int64",
        "image_id: string",
        "uri: string",
        "status: string",
        "error: string",
        "score: float",
        "scores: struct<a: float, b: float>",
        "margins: struct<a: float, b: float>",
        "width: int32",
        "height: int32",
    ]


def test_embedded_rows_have_features_and_views_instead_of_scores():
    names = [field.name for field in fields(Contents(pa.int64(), embedding=4, views=3))]
    assert names[-5:] == ["width", "height", "embedding", "views", "view_levels"]
    assert "score" not in names
    types = described(Contents(pa.int64(), embedding=4, views=3))
    assert types[2] == "image_id: int64"
    assert types[-2] == "views: fixed_size_list<item: halffloat>[12]"
    assert "views" not in [field.name for field in fields(Contents(pa.int64(), embedding=4))]


def test_hashes_and_crops_have_columns_where_they_are_asked_for():
    plain = described(Contents(pa.string(), pairs=("a",)))
    both = described(Contents(pa.string(), pairs=("a",), hashes=True, crops=5, descriptors=True))
    assert [name for name in both if name not in plain] == [
        "score_low: float",
        "score_spread: float",
        "content_hash: string",
        "descriptor: fixed_size_list<item: int8>[168]",
    ]
    embedded = described(Contents(pa.string(), embedding=4, hashes=True, crops=5))
    assert "content_hash: string" in embedded
    assert "score_low: float" not in embedded


def test_a_row_always_has_its_identity_and_status():
    nullable = {field.name: field.nullable for field in fields(Contents(pa.string(), ("a",)))}
    assert [name for name, can_be_null in nullable.items() if not can_be_null] == [
        *IDENTITY,
        "status",
    ]


def test_names_are_unique_and_of_known_kinds():
    assert len(OWN_NAMES) == len(COLUMNS)
    assert names_of(*Kind) == tuple(column.name for column in COLUMNS)
    assert names_of(Kind.SCORE) == ("score", "scores", "margins", "score_low", "score_spread")


def test_what_readers_require():
    assert required_by(Reader.AUDIT) == (*IDENTITY, "status")
    assert required_by(Reader.EVALUATION) == (*IDENTITY, "status", "score")
    assert required_by(Reader.REPORT) == (*IDENTITY, "uri", "status", "error", "score", "scores")


def test_the_documentation_has_this_table():
    table = markdown_table()
    assert table.count("\n") == len(COLUMNS) + 2
    assert table in DOCUMENT.read_text(encoding="utf-8")
