"""Tests of iqa_core/pages/run/browse.py, on part files written here."""

from __future__ import annotations

import pyarrow as pa

from iqa_core.pages.html import asset
from tests.iqa_core.pages.run.runs import failed, ok


def test_the_table_has_what_is_shown_failures_of_each_kind_and_an_even_rest(make):
    rows = [ok(i, i / 1000, f"{i}.jpg", kind=None, level=i) for i in range(1000)]
    rows += [failed(1000 + i, f"t{i}.jpg", "timeout") for i in range(500)]
    rows += [failed(1500, "rare.jpg", "empty")]
    _, page = make(rows, [("kind", pa.string()), ("level", pa.int64())], rows=100)
    statuses = page.column("Status")
    assert len(statuses) == 100
    assert statuses.count("timeout") == 19
    assert statuses.count("empty") == 1
    scores = [score for score in page.column("Score") if score is not None]
    assert scores == sorted(scores)
    assert {0.0, 0.999} <= set(scores)
    assert page.column("level")[0] == 0
    labels = [column["label"] for column in page.table()["columns"]]
    assert labels[:4] == ["Score", "Image", "Status", "Dispute of the pairs"]
    assert labels[4:8] == ["kind", "level", "quality", "noise"]


def test_only_fractions_of_kept_numbers_are_rounded(make):
    columns = {
        "user": (pa.int64(), [1234567, 2, None], [1234567, 2, None]),
        "hash": (pa.uint64(), [2**60 + 1, 2**53, None], [str(2**60 + 1), str(2**53), None]),
        "size": (pa.float64(), [7654321.0, -0.0, 2.0**53 - 1], [7654321, 0, 2**53 - 1]),
        "mixed": (pa.float64(), [1234567.25, 0.123456789, 123456.0], [1234567, 0.12346, 123456]),
        "huge": (pa.float64(), [1.23456789e300, 1.0, None], [1.2346e300, 1, None]),
    }
    rows = [
        ok(i, i / 10, f"{i}.jpg", **{name: values[i] for name, (_, values, _) in columns.items()})
        for i in range(3)
    ]
    _, page = make(rows, [(name, kind) for name, (kind, _, _) in columns.items()])
    assert {name: page.column(name) for name in columns} == {
        name: shown for name, (_, _, shown) in columns.items()
    }
    digits = {column["label"]: column.get("digits") for column in page.table()["columns"]}
    assert [digits[name] for name in columns] == [0, None, 0, None, None]


def test_no_table_needs_no_script_of_its_own(make):
    facts, page = make([ok(0, 0.5, "a.jpg")], rows=0)
    assert facts.listed == 0
    assert page.scripts == [asset("templates/threshold.js")]
    assert "Sort and filter" not in page.text
