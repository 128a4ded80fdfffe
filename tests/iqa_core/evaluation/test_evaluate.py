"""Tests of evaluation/evaluate.py: equal to scipy, to an independent fit, to published examples."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from scipy import optimize, stats

from iqa_core.evaluation.evaluate import (
    METRICS,
    LogisticFit,
    describe,
    evaluate,
    fit_logistic,
    meng_test,
    williams_test,
)

RNG = np.random.default_rng(5)


def four(x, b1, b2, b3, b4):
    return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / np.abs(b4)))


def five(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


def opinions(count=300, noise=4.0, seed=0):
    """Scores in [0, 1] and MOS of 0 to 100 that bends with them."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=count)
    return x, 20 + 60 / (1 + np.exp(-(x - 0.45) / 0.09)) + 8 * x + noise * rng.normal(size=count)


def independent(curve, x, y, start):
    """Fit by scipy's own least squares over all parameters, without any of our code."""
    best, _ = optimize.curve_fit(
        curve, x, y, p0=start, maxfev=100_000, ftol=1e-14, xtol=1e-14, gtol=1e-14
    )
    return curve(x, *best)


# Values ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_logistic_fits_equal_an_independent_one(sign, scale):
    x, y = opinions()
    for curve, start in ((four, (90, 20, 0.45, 0.09)), (five, (60, 11, 0.45, 8, 50))):
        fitted = independent(curve, x, y, start)
        found = fit_logistic(sign * scale * x + 3 * scale, y, len(start))
        assert found.plcc == pytest.approx(np.corrcoef(fitted, y)[0, 1], abs=1e-6)
        assert found.rmse == pytest.approx(np.sqrt(np.mean((fitted - y) ** 2)), abs=1e-6)
        np.testing.assert_allclose(found(sign * scale * x + 3 * scale), fitted, atol=1e-4)


def test_a_curve_without_noise_gives_its_parameters_back():
    x = np.linspace(0, 1, 200)
    wanted = (90.0, 20.0, 0.4, 0.1)
    assert fit_logistic(x, four(x, *wanted), 4).parameters == pytest.approx(wanted, rel=1e-5)
    wanted = (60.0, 12.0, 0.4, 8.0, 50.0)
    assert fit_logistic(x, five(x, *wanted), 5).parameters == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "bend",
    [lambda x: 3 * x - 1, np.exp, lambda x: -np.exp(-4 * x), lambda x: (x > 0.5) * 1.0, np.cbrt],
    ids=["line", "exponential", "saturating", "step", "root"],
)
def test_a_fit_never_does_worse_than_a_straight_line_and_says_what_it_reaches(bend):
    x = np.random.default_rng(1).uniform(size=400)
    y = bend(x) + 0.05 * np.random.default_rng(2).normal(size=400)
    for parameters in (4, 5):
        fit = fit_logistic(x, y, parameters)
        assert fit.plcc >= abs(stats.pearsonr(x, y).statistic) - 1e-5
        assert np.corrcoef(fit(x), y)[0, 1] == pytest.approx(fit.plcc, abs=1e-6)
        assert np.sqrt(np.mean((fit(x) - y) ** 2)) == pytest.approx(fit.rmse, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 2, 3, 4], [1, 3, 2, 4]), ([1] * 9, range(9)), (range(9), [1] * 9)],
    ids=["few", "constant scores", "constant labels"],
)
def test_no_fit(x, y):
    assert fit_logistic(list(x), list(y), 4) is None


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


# Intervals ------------------------------------------------------------------------------------------


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


# Differences ----------------------------------------------------------------------------------------


def test_meng_on_the_papers_example():
    """Meng, Rosenthal and Rubin 1992: 15 subjects, r of .63 and -.03, r between of -.19: Z = 1.68."""
    z, p = meng_test(0.63, -0.03, -0.19, 15)
    assert z == pytest.approx(1.68, abs=0.005)
    assert p == pytest.approx(0.093, abs=0.0005)
    assert meng_test(-0.03, 0.63, -0.19, 15) == (-z, p)


@pytest.mark.parametrize(
    ("r", "count", "t", "p"),
    [
        ((0.4, 0.5, 0.1), 103, -0.89, 0.37),  # psych::r.test(103, .4, .5, .1), of Steiger 1980
        ((0.20, 0.45, 0.80), 100, -4.56, 1e-5),  # bruceR::cor_diff(.20, .45, n = 100, rcov = .80)
    ],
)
def test_williams_on_published_examples(r, count, t, p):
    found = williams_test(*r, count)
    assert found[0] == pytest.approx(t, abs=0.005)
    assert found[1] == pytest.approx(p, abs=0.005)


@pytest.mark.parametrize("test", [meng_test, williams_test])
def test_limits_of_the_significance_tests(test):
    assert test(0.5, 0.5, 0.9, 100) == (0.0, 1.0)
    assert test(0.5, 0.5, 1.0, 100) == (0.0, 1.0)
    assert all(map(math.isnan, test(0.5, 0.6, 0.9, 3)))
    assert all(map(math.isnan, test(math.nan, 0.6, 0.9, 50)))
    assert all(map(math.isnan, test(0.5, 0.6, 1.0, 50)))


@pytest.mark.parametrize(
    ("test", "correlate"),
    [(functools.partial(meng_test, ranks=True), stats.spearmanr), (williams_test, stats.pearsonr)],
    ids=["meng", "williams"],
)
def test_significance_tests_are_wrong_as_often_as_they_say(test, correlate):
    """Two equally good models: a p below 0.1 comes in a tenth of all trials."""
    rng = np.random.default_rng(8)
    below = 0
    for _ in range(400):
        truth, a, b = rng.normal(size=(3, 100))
        a, b = truth + 0.7 * a, truth + 0.7 * b
        r = [correlate(*pair).statistic for pair in ((a, truth), (b, truth), (a, b))]
        below += test(*r, 100)[1] < 0.1
    assert 22 <= below <= 58  # 40, and three standard deviations


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


# Groups, text ---------------------------------------------------------------------------------------


def test_groups_are_evaluated_by_themselves():
    x, y = opinions(120)
    kinds = np.where(np.arange(120) % 3 == 0, "blur", "noise")
    found = evaluate({"a": x}, y, groups=kinds, resamples=30)
    assert {name: group.count for name, group in found.groups.items()} == {"blur": 40, "noise": 80}
    alone = evaluate({"a": x[kinds == "blur"]}, y[kinds == "blur"], resamples=30)
    assert found.groups["blur"].as_dict() == alone.as_dict()
    assert found.as_dict()["groups"]["blur"]["images"] == 40
    assert any(line.startswith("blur ") for line in describe(found))


def test_text_tells_images_intervals_and_the_wrong_direction():
    x, y = opinions(100)
    text = "\n".join(describe(evaluate({"a": x}, 100 - y, resamples=40)))
    assert text.startswith("100 images; 95% bootstrap intervals from 40 resamples of images")
    assert "a falls as the labels rise" in text
    assert "--lower-is-better" in text
    text = "\n".join(describe(evaluate({"a": x}, y, resamples=0)))
    assert "no intervals" in text
    assert "[" not in text
    assert "falls" not in text


def test_a_fit_can_be_evaluated_anywhere():
    fit = LogisticFit((1.0, 0.0, 0.5, 0.1), 1.0, 0.0)
    np.testing.assert_allclose(fit([0.5, 1e9, -1e9]), [0.5, 1, 0])
