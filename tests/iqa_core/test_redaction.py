"""Tests of iqa_core/redaction.py; what is taken for a secret is tested in test_fetching.py."""

from __future__ import annotations

import time

import pytest

from iqa_core.redaction import error_line, one_line, shown


def test_long_texts_are_shown_in_part():
    assert shown("a" * 160) == "a" * 160
    assert shown("a" * 200 + "b" * 100) == f"{'a' * 120}...{'b' * 40} (300 characters)"
    assert shown("a" * 100_000) == f"{'a' * 120}... (100,000 characters)"


@pytest.mark.parametrize("length", [10, 1_000, 100_000])
def test_parts_of_long_texts_hold_no_secret(length):
    for text in (
        f"https://me:secret@h/{'a' * length}",
        f"https://h/a?X-Amz-Security-Token={'secret' * length}",
        f"https://h/a?x={'y' * length}&sig=secret",
    ):
        assert "secret" not in shown(text)


def test_a_hostile_megabyte_is_shown_in_no_time():
    began = time.monotonic()
    for piece in ("?sig", "?a://?", "a://b@"):
        assert len(shown("https://h/" + piece * 1_000_000)) < 200
    assert time.monotonic() - began < 3


def test_texts_are_printable():
    assert shown("a\x1b[0m\udce9\u202eb\n") == "a\\x1b[0m\\xe9\\u202eb\\n"
    assert one_line("a\n  b\x00c https://me:x@h/") == "a b\\x00c https://h/"
    assert shown("photos/Zoë 雪.jpg") == "photos/Zoë 雪.jpg"


def test_an_error_is_one_line_or_its_type():
    assert error_line(ValueError("a\n b s3://me:x@h/")) == "a b s3://h/"
    assert error_line(KeyError()) == "KeyError"
    assert error_line(ValueError("a" * 900), 10) == "a" * 10
