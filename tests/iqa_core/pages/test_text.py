"""Tests of iqa_core/pages/text.py."""

from __future__ import annotations

import math

import pytest

from iqa_core.pages.text import (
    NONE,
    clean,
    flatten,
    middle,
    number,
    plural,
    share,
    short_name,
    shorten,
    significant,
    value_of,
)


def test_secrets_and_invisible_characters_are_taken_out():
    assert clean("s3://key:pass@b/a.jpg?X=1 and\nmore") == "s3://…@b/a.jpg?… and more"
    assert clean("a\u202eb\x00") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_long_texts_are_cut_in_their_middle():
    assert middle("abcdefghij", 5) == "ab…ij"
    assert middle("abcde", 5) == "abcde"
    assert len(shorten("x" * 1000)) == 399
    row = {"uri": f"images/{'y' * 50}.jpg", "manifest_file": "m", "manifest_row": 1}
    assert short_name(row) == "y" * 16 + "…" + "y" * 12 + ".jpg"
    assert short_name(row | {"uri": None}) == "m row 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, NONE),
        ([], NONE),
        (True, "yes"),
        (1234567, "1,234,567"),
        (-0.12345, "\N{MINUS SIGN}0.1235"),
        (12345.6, "12,346"),
        (math.nan, NONE),
        (["a", 2, ()], f"a, 2, {NONE}"),
    ],
)
def test_values_of_json_documents(value, text):
    assert value_of(value) == text


def test_numbers():
    assert number(-1.0, 0) == "\N{MINUS SIGN}1"
    assert number(math.inf) == NONE
    assert significant(2.45e-8) == "2.45e\N{MINUS SIGN}08"
    assert share(1, 3) == "1 (33.3%)"
    assert share(0, 0) == NONE
    assert plural(1, "row") == "1 row"
    assert plural(2000, "row") == "2,000 rows"


def test_documents_are_flattened_by_path():
    assert list(flatten({"a_b": {"c": 1, "d": {}}, "e": 2})) == [
        ("a b: c", 1),
        ("a b: d", None),
        ("e", 2),
    ]
