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
