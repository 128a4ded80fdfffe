"""Tests of iqa_core/pages/run/threshold.py: what the slider's script gets."""

from __future__ import annotations

import json

import numpy as np

from tests.iqa_core.pages.run.runs import failed, many, ok


def quantiles(page):
    [found] = [div["data-quantiles"] for div in page.find("div") if "data-quantiles" in div]
    return json.loads(found)


def test_a_small_run_has_all_its_scores(make, tmp_path):
    _, page = make([ok(0, 0.75, "a.jpg"), ok(1, 0.25, "b.jpg"), failed(2)])
    data = quantiles(page)
    assert data["values"] == [0.25, 0.75]
    assert data["exact"] is True
    assert data["scored"] == 2
    assert data["scores"] == str(tmp_path / "scores")


def test_a_large_one_has_quantiles_and_says_so(make):
    rows = many()
    _, page = make(rows)
    data = quantiles(page)
    assert len(data["values"]) == 1001
    assert data["exact"] is False
    scores = [row["score"] for row in rows if row["status"] == "ok"]
    np.testing.assert_allclose(
        data["values"], np.quantile(scores, np.linspace(0, 1, 1001)), atol=2e-3
    )
    assert "1,001 quantiles and is rounded" in page.text


def test_a_run_without_scores_has_none(make):
    _, page = make([failed(0)])
    assert not [div for div in page.find("div") if "data-quantiles" in div]
