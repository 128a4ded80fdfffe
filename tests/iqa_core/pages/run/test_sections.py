"""Tests of iqa_core/pages/run/sections.py, on part files written here."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.iqa_core.pages.run.runs import failed, ok


def test_no_scored_row(make):
    facts, page = make([failed(0), failed(1)])
    assert (facts.scored, facts.failed, facts.shown) == (0, 2, 0)
    assert "No row has a score" in page.text
    assert page.find("svg") == []


def test_one_row(make):
    facts, page = make([ok(0, 0.5, "a.jpg")])
    assert facts.rows == facts.shown == 1
    assert "None: every row has a score." in page.text


def test_no_row(make):
    facts, page = make([])
    assert facts.rows == 0
    assert "The run has no rows." in page.text


def test_missing_run_files_leave_facts_unknown(make):
    _, page = make([ok(0, 0.5, "a.jpg")], documents={"plan": [], "config": 3})
    assert "may not be finished" in page.text
    assert "Options: unknown" in page.text


def shard(index, count, **more):
    """The name of a shard's summary, and a summary."""
    document = {
        "complete": True,
        "rows": 10,
        "images_per_second": 20.0,
        "seconds": 5.0 + index,
        "stage_seconds": {"fetch": 1.0, "model": 3.0 + index},
        "bottleneck": "model" if index else "fetch",
        "version": "0.3",
        "devices": {"cpu": 1},
    }
    return f"summary-{index:04d}-of-{count:04d}", document | more


def test_the_summaries_of_all_shards_are_one(make):
    shards = dict(shard(i, 3) for i in range(3))
    _, page = make([ok(0, 0.5, "a.jpg")], documents=shards)
    assert "not finished" not in page.text
    assert "not be finished" not in page.text
    for text in (
        "per second60",
        "model bottleneck",
        "12.00",
        "80%",
        "rows30",
        "seconds7",
        "version0.3",
    ):
        assert text in page.text


@pytest.mark.parametrize(
    ("documents", "reasons"),
    [
        ({"summary": {"complete": False}}, ""),
        (dict([shard(0, 2), shard(1, 2, complete=False)]), " Ended early: shard 1/2."),
        (dict([shard(0, 3)]), " No summary: shards 1/3, 2/3."),
        (dict(shard(i, 12, complete=False) for i in range(12)), "0/12, 1/12, .*9/12 and 2 more."),
    ],
    ids=["stopped", "a-shard-stopped", "shards-without-summary", "many"],
)
def test_an_unfinished_run_says_so(make, documents, reasons):
    _, page = make([ok(0, 0.5, "a.jpg")], documents=documents)
    text = "The run is not finished: this page shows the rows committed so far."
    assert re.search(re.escape(text) + ".*" + reasons, page.text)


def test_the_rows_of_the_plan_tell_whether_a_run_is_finished(make):
    old = {"summary": {"complete": True}}  # of the run before the one that goes on now
    _, page = make([ok(0, 0.5), ok(1, 0.5)], documents={**old, "plan": {"rows": 3000}})
    assert "not finished: this page shows the 2 of 3,000 rows committed so far." in page.text


@pytest.mark.parametrize(
    "documents",
    [
        {"plan": {"rows": 1}},
        {"plan": {"rows": 1}, **dict([shard(1, 2)])},  # the other had nothing left to do
        dict([shard(0, 2, complete=False), ("summary", {"complete": True, "finished": "2026"})]),
        dict([shard(0, 2), shard(1, 2), ("summary", {"complete": False, "finished": "2024"})]),
    ],
    ids=["without-summary", "without-a-shard", "rest-without-shards", "rest-in-shards"],
)
def test_a_finished_run_needs_no_notice(make, documents):
    _, page = make([ok(0, 0.5, "a.jpg")], documents=documents)
    assert "finished:" not in page.text


def test_run_facts_and_bottleneck(make):
    summary = {
        "images_per_second": 41.82,
        "stage_seconds": {"fetch": 1.0, "model": 3.0},
        "bottleneck": "model",
        "machine": {"cpus": 2},
    }
    config = {"model": "tiny", "pairs": "quality", "keep": ["a", "b"], "embeddings": False}
    _, page = make([ok(0, 0.5)], documents={"summary": summary, "config": config})
    for text in ("41.82", "quality (2)", "model bottleneck", "75%", "machine: cpus", "a, b"):
        assert text in page.text


def test_failures_by_kind_with_three_examples(make):
    rows = [failed(i, f"gone{i}.jpg") for i in range(5)] + [failed(5, "t.jpg", "timeout", None)]
    _, page = make([*rows, ok(6, 0.5)])
    assert "6 of 7 rows without a score" in page.text
    assert "gone2.jpg" in page.text
    assert "gone3.jpg" not in page.text
    assert "no message" in page.text


def test_histogram_counts_every_scored_row(make):
    values = np.random.default_rng(0).uniform(0.2, 0.6, 500)
    _, page = make([ok(i, float(v)) for i, v in enumerate(values)], thumbnails=0)
    bars = [int(n) for n in re.findall(r": (\d+) image", page.text)]
    assert sum(bars) == 3 * 500  # overall and two pairs


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 1e-7])
def test_histogram_of_equal_scores(make, value):
    facts, page = make([ok(i, value) for i in range(3)], thumbnails=0)
    assert facts.scored == 3
    assert ": 3 images" in page.text
