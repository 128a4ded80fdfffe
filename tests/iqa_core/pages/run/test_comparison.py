"""Tests of iqa_core/pages/run/comparison.py, on part files written here."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from iqa_core.errors import InputError
from iqa_core.pages.run.page import write_report
from iqa_core.pages.text import NONE
from tests.iqa_core.pages.run.runs import another, failed, many, ok


def test_drift_against_another_run(make, tmp_path):
    evil = "<b>.jpg"
    uris = [f"{i}.jpg" for i in range(9)] + [evil]
    there = [ok(i, (9 - i if i in (0, 9) else i) / 20, uri) for i, uri in enumerate(uris)]
    there[4] = failed(4, "4.jpg", "timeout")
    there.append(ok(10, 0.7, "only-there.jpg"))
    other = another(tmp_path / "other", there[::-1])
    _, page = make([ok(i, i / 20 + 0.4, uri) for i, uri in enumerate(uris)], compare=other)
    for text in (
        "Rows in both, by their uri10",
        "Rows only here, only there0, 1",
        "Scored in both9",
        "Moved by more than a tenth of the ranks2 (22.2%)",
        "oktimeout1",
        "above 100% of the images here, 0% there (0.000)",
        "above 0% of the images here, 100% there (0.450)",
    ):
        assert text in page.text
    assert page.find("b") == [{}] * len(page.find("b"))


def test_a_run_against_itself_has_no_disputed_images(make, tmp_path):
    rows = [ok(i, i / 20, f"{i}.jpg") for i in range(5)]
    _, page = make(rows, compare=another(tmp_path / "other", rows))
    assert "Rank correlation (SRCC) of the two1.000" in page.text
    assert "Better here than there" not in page.text
    assert "Largest gap of the two cumulative distributions0.000" in page.text


def test_the_gap_of_the_two_distributions_is_on_the_page(make, tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.random(50).round(1), (0.2 + 0.8 * rng.random(70)).round(1)
    other = another(tmp_path / "other", [ok(i, s, f"{i}.jpg") for i, s in enumerate(second)])
    _, page = make([ok(i, s, f"{i}.jpg") for i, s in enumerate(first)], compare=other)
    # the cumulative shares right after each value that there is
    gap = max(abs((first <= x).mean() - (second <= x).mean()) for x in {*first, *second})
    assert gap > 0.1
    assert f"Largest gap of the two cumulative distributions{gap:.3f}" in page.text


def test_runs_without_a_common_score(make, tmp_path):
    other = another(tmp_path / "other", [failed(0, "a.jpg"), ok(1, 0.5, "b.jpg")])
    _, page = make([ok(0, 0.5, "a.jpg")], compare=other)
    assert f"Scored in both0Rank correlation (SRCC) of the two{NONE}" in page.text
    with pytest.raises(InputError, match=r"compare .*gone holds no part-\*\.parquet"):
        write_report(str(tmp_path / "scores"), str(tmp_path / "r.html"), compare="gone")


def test_a_sample_is_compared_with_the_same_rows_of_another_run(make, tmp_path):
    there = many()
    for row in there:
        if row["status"] == "ok":
            row["score"] = 1 - row["score"]
    other = another(tmp_path / "other", there[::-1])
    _, page = make(many(), sample=200, compare=other)
    held = int(re.search(r"are of (\d+) of the run's", page.text)[1])
    assert (
        f"Rows of the sample in both, by their uri{held}Rows of the sample only here0" in page.text
    )
    assert f"Scored in both, of the sample{held - 1}" in page.text
    assert "Rank correlation (SRCC) of the two\N{MINUS SIGN}1.000" in page.text


def test_rows_of_a_sample_are_counted_over_all_files_of_the_manifest(make, tmp_path):
    rows = []
    for file in range(8):
        for i in range(100):
            score = (file * 100 + i) / 800
            rows.append({**ok(i, score, f"{file}-{i}.jpg"), "manifest_file": f"{file}.parquet"})
    plan = {"files": [{"name": f"{file}.parquet", "size": 1} for file in range(8)]}
    there = rows[:790] + [failed(100 + i) | {"manifest_file": "7.parquet"} for i in range(3)]
    other = another(tmp_path / "other", there)
    (tmp_path / "other" / "_run").mkdir()
    (tmp_path / "other" / "_run" / "plan.json").write_text(json.dumps(plan))
    _, page = make(rows, documents={"plan": plan}, sample=100, compare=other, thumbnails=0)
    for text in ("Rows in both, by their place790", "Rows only here, only there10, 3"):
        assert text in page.text
    assert "Rank correlation (SRCC) of the two1.000" in page.text
    # both distributions are of the same rows
    gap = float(re.search(r"two cumulative distributions(0\.\d+)", page.text)[1])
    assert gap < 0.1
