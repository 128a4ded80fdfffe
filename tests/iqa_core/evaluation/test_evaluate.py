"""Tests of iqa_core/evaluation/evaluate.py: equal to SciPy, comparisons, groups, undefined values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from iqa_core.evaluation.describe import describe
from iqa_core.evaluation.evaluate import evaluate
from iqa_core.evaluation.results import METRICS
from tests.iqa_core.evaluation.opinions import opinions


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_equal_scipy(ties):
    x, y = opinions()
    if ties:
        x, y = np.round(x, 1), np.round(y, -1)
    found = evaluate({"a": x}, y, resamples=0).metrics["a"]
    assert found["srcc"].value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found["krcc"].value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert found["plcc"].value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert math.isnan(found["srcc"].low)


def test_labels_that_fall_with_quality_are_turned_round():
    x, y = opinions()
    up, down = (
        evaluate({"a": x}, y, resamples=50),
        evaluate({"a": x}, 100 - y, lower_is_better=True, resamples=50),
    )
    for key in METRICS:
        a, b = up.metrics["a"][key], down.metrics["a"][key]
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-5)


def test_whatever_is_undefined_is_nan_and_null():
    found = evaluate({"a": np.ones(20)}, np.arange(20), resamples=20)
    assert all(math.isnan(one.value) for one in found.metrics["a"].values())
    assert found.as_dict()["metrics"]["a"]["srcc"] == {"value": None, "low": None, "high": None}
    assert "undefined" in "\n".join(describe(found))


@pytest.mark.parametrize("count", range(1, 9))
def test_few_images_of_few_values_break_nothing(count):
    rng = np.random.default_rng(count)
    for x in (rng.integers(2, size=count), rng.integers(3, size=count), np.arange(count)):
        found = evaluate(
            {"a": x, "b": rng.random(count)},
            rng.random(count),
            clusters=rng.integers(3, size=count),
            groups=rng.integers(2, size=count),
            resamples=20,
        )
        json.dumps(found.as_dict(), allow_nan=False)
        describe(found)


def test_scores_and_labels_of_other_lengths():
    with pytest.raises(
        ValueError, match=r"scores of a \(3,\) and labels \(4,\) must both be \(N,\)"
    ):
        evaluate({"a": [1, 2, 3]}, [1, 2, 3, 4])


def test_a_better_model_is_found_and_an_equal_one_is_not():
    x, y = opinions(400)
    rng = np.random.default_rng(4)
    sets = {
        "good": x + 0.05 * rng.normal(size=400),
        "as good": x + 0.05 * rng.normal(size=400),
        "bad": x + 0.5 * rng.normal(size=400),
    }
    found = evaluate(sets, y, resamples=200)
    by = {(one.first, one.second, one.metric): one for one in found.comparisons}
    assert len(by) == 3 * 5
    better, equal = by["good", "bad", "srcc"], by["good", "as good", "srcc"]
    assert better.test == "meng"
    assert better.p_test < 1e-10
    assert better.p_bootstrap == pytest.approx(2 / 201)
    assert better.difference.low > 0
    assert better.difference.value == pytest.approx(
        found.metrics["good"]["srcc"].value - found.metrics["bad"]["srcc"].value
    )
    assert equal.p_holm > 0.05
    assert equal.difference.low < 0 < equal.difference.high
    # Holm: the least p of three times 3, the next times 2, never falling
    p = sorted(by[pair].p_test for pair in by if pair[2] == "srcc")
    corrected = sorted(by[pair].p_holm for pair in by if pair[2] == "srcc")
    wanted = np.minimum(1, np.maximum.accumulate([3 * p[0], 2 * p[1], p[2]]))
    np.testing.assert_allclose(corrected, wanted)
    text = "\n".join(describe(found))
    assert "good - bad" in text
    assert "(Meng-Rosenthal-Rubin)" in text
    assert "(Williams)" in text


def test_groups_are_evaluated_by_themselves():
    x, y = opinions(120)
    kinds = np.where(np.arange(120) % 3 == 0, "blur", "noise")
    found = evaluate({"a": x}, y, groups=kinds, resamples=30)
    assert {name: group.count for name, group in found.groups.items()} == {"blur": 40, "noise": 80}
    alone = evaluate({"a": x[kinds == "blur"]}, y[kinds == "blur"], resamples=30)
    assert found.groups["blur"].as_dict() == alone.as_dict()
    assert found.as_dict()["groups"]["blur"]["images"] == 40
    assert any(line.startswith("blur ") for line in describe(found))


def test_clusters_have_no_test_of_independent_images():
    """Two models that differ in one reference's images only are no different."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(12), 20)
    y = rng.normal(size=240)
    shared = rng.normal(size=240)
    sets = {name: y + shared + rng.normal(size=12)[cluster] for name in ("a", "b")}
    alone = evaluate(sets, y, resamples=200)
    together = evaluate(sets, y, resamples=200, clusters=cluster)
    assert {one.test for one in alone.comparisons} == {"meng", "williams", ""}
    assert {one.test for one in together.comparisons} == {""}
    for one in together.comparisons:
        assert math.isnan(one.p_test)
        assert one.p_holm == one.p_bootstrap
    first = [e.comparisons[0] for e in (alone, together)]
    assert first[1].p_holm > first[0].p_holm
    assert "12 clusters are few" in "\n".join(describe(together))
    assert "Meng" not in "\n".join(describe(together))
