"""Tests of iqa_core/evaluation/bootstrap.py: resamples, intervals and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from iqa_core.evaluation.bootstrap import (
    Resampler,
    bootstrap_p_value,
    draw_resamples,
    expanded_tails,
    percentile_interval,
)
from iqa_core.evaluation.evaluate import evaluate
from iqa_core.evaluation.logistic import fit_logistic
from tests.iqa_core.evaluation.opinions import opinions


def test_bootstrap_values_are_those_of_the_resampled_rows():
    """With one row left out of 400, all of a resample's values are those of scipy on its rows."""
    x, y = np.round(opinions(60)[0], 1), np.round(opinions(60)[1])
    rows = np.random.default_rng(0).integers(60, size=60)  # what seed 0 draws first
    found = evaluate({"a": x}, y, resamples=1, seed=0).metrics["a"]
    assert found["srcc"].low == found["srcc"].high
    assert found["srcc"].low == pytest.approx(stats.spearmanr(x[rows], y[rows]).statistic)
    assert found["krcc"].low == pytest.approx(stats.kendalltau(x[rows], y[rows]).statistic)
    assert found["plcc"].low == pytest.approx(stats.pearsonr(x[rows], y[rows]).statistic)
    refit = fit_logistic(x[rows], y[rows], 4)
    assert found["plcc_logistic4"].low == pytest.approx(refit.plcc, abs=1e-3)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """Pearson's and Spearman's are known for a normal pair: rho and 6/pi asin(rho/2)."""
    rho, count, trials = 0.8, 60, 60
    truth = {"plcc": rho, "srcc": 6 / math.pi * math.asin(rho / 2)}
    covered, widths = dict.fromkeys(truth, 0), []
    rng = np.random.default_rng(11)
    for trial in range(trials):
        x, e = rng.normal(size=(2, count))
        y = rho * x + math.sqrt(1 - rho**2) * e
        found = evaluate({"a": x}, y, resamples=40, confidence=0.9, seed=trial).metrics["a"]
        for key, value in truth.items():
            covered[key] += found[key].low <= value <= found[key].high
        widths.append(found["plcc"].high - found["plcc"].low)
    # 0.9 of 60 is 54; three standard deviations are 7
    assert all(47 <= count <= 60 for count in covered.values()), covered
    # nor are they too wide: 90 % of a Pearson correlation are within 1.645 (1 - rho^2) / sqrt(n)
    wanted = 2 * 1.645 * (1 - rho**2) / math.sqrt(count)
    assert np.mean(widths) == pytest.approx(wanted, rel=0.15)


def test_clusters_widen_intervals_where_images_of_one_cluster_are_alike():
    rng = np.random.default_rng(3)
    common = np.repeat(rng.normal(size=(2, 20)), 10, axis=1)
    x, y = common + 0.05 * rng.normal(size=(2, 200))
    clusters = np.repeat(np.arange(20), 10)
    alone = evaluate({"a": x}, y, resamples=200).metrics["a"]["srcc"]
    together = evaluate({"a": x}, y, resamples=200, clusters=clusters)
    assert together.clusters == 20
    wide = together.metrics["a"]["srcc"]
    assert wide.high - wide.low > 2 * (alone.high - alone.low)


def test_a_seed_gives_the_same_again_and_another_one_does_not():
    x, y = opinions(50)
    first, again, other = (
        evaluate({"a": x}, y, resamples=50, seed=seed).as_dict() for seed in (1, 1, 2)
    )
    assert first == again
    assert first["metrics"] != other["metrics"]


def test_the_curves_band_holds_the_curve():
    x, y = opinions()
    curve = evaluate({"a": x}, y, resamples=100).curves["a"]
    assert curve.shape == (101, 4)
    assert (curve[0, 0], curve[-1, 0]) == (x.min(), x.max())
    assert np.mean((curve[:, 2] <= curve[:, 1]) & (curve[:, 1] <= curve[:, 3])) > 0.95
    assert evaluate({"a": x[:3]}, y[:3], resamples=10).curves["a"].shape == (0, 4)


def test_whole_clusters_are_drawn():
    cluster = np.array([0, 1, 1, 2, 2, 2])
    for rows in draw_resamples(6, cluster, 20, seed=0):
        counts = np.bincount(rows, minlength=6)
        assert counts[1] == counts[2]
        assert counts[3] == counts[4] == counts[5]
        assert counts[0] + counts[1] + counts[3] == 3
    assert list(draw_resamples(6, np.zeros(6), 20, seed=0)) == []
    assert list(draw_resamples(1, None, 20, seed=0)) == []


def test_undefined_resamples_are_left_out_of_intervals_and_p_values():
    values = np.array([1.0, math.nan, 3.0])
    assert percentile_interval(values, (0.0, 1.0)) == (1.0, 3.0)
    assert bootstrap_p_value(values) == pytest.approx(2 * 1 / 3)
    assert bootstrap_p_value(np.array([-1.0, 1.0])) == 1.0
    assert all(map(math.isnan, percentile_interval(values[1:2], (0.0, 1.0))))
    assert math.isnan(bootstrap_p_value(values[1:2]))


def test_few_clusters_widen_the_tails():
    """Student's t: with many clusters the plain percentiles."""
    assert expanded_tails(0.95, None) == pytest.approx((0.025, 0.975))
    assert expanded_tails(0.95, 10_000)[0] == pytest.approx(0.025, abs=1e-4)
    low, high = expanded_tails(0.95, 8)
    expected = stats.norm.cdf(stats.t.ppf(0.025, 7) * (8 / 7) ** 0.5)
    assert low == pytest.approx(expected)
    assert high == pytest.approx(1 - expected)


def test_p_is_that_whose_interval_touches_0():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.4, 0.2, size=20_000)
    for clusters in (None, 8, 30):
        p = bootstrap_p_value(differences, clusters)
        low = np.quantile(differences, expanded_tails(1 - p, clusters)[0])
        assert low == pytest.approx(0, abs=0.01)
    assert bootstrap_p_value(differences, 8) > bootstrap_p_value(differences, 30)


@pytest.mark.parametrize("size", [1e155, 1e-200])
def test_labels_of_any_size_give_the_same_resamples(size):
    rng = np.random.default_rng(3)
    x = rng.random(40)
    y = x + rng.normal(0, 0.1, 40)
    rows = rng.integers(40, size=40)
    plain, sized = (Resampler(x, y * each, False).resample(rows)[0] for each in (1.0, size))
    np.testing.assert_allclose(sized[:5], plain[:5], rtol=1e-6)
    np.testing.assert_allclose(np.array(sized[5:]) / size, plain[5:], rtol=1e-6)
