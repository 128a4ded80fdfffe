"""Tests of iqa_core/evaluation/logistic.py: equal to an independent fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit

from iqa_core.evaluation.logistic import LogisticFit, fit_logistic
from tests.iqa_core.evaluation.opinions import opinions


def four(x, b1, b2, b3, b4):
    return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / np.abs(b4)))


def five(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


def independent(curve, x, y, start):
    """Fit by scipy's own least squares over all parameters, without any of our code."""
    best, _ = optimize.curve_fit(
        curve, x, y, p0=start, maxfev=100_000, ftol=1e-14, xtol=1e-14, gtol=1e-14
    )
    return curve(x, *best)


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


@pytest.mark.parametrize("size", [1e155, 1e300, 1e-200])
def test_labels_of_any_size_give_the_same_curve(size):
    scores = np.linspace(0, 1, 40)
    labels = expit(8 * scores - 4) + 0.02 * np.sin(37 * scores)
    plain, sized = (fit_logistic(scores, labels * each, 4) for each in (1.0, size))
    assert sized.plcc == pytest.approx(plain.plcc, rel=1e-12)
    assert sized.rmse / size == pytest.approx(plain.rmse, rel=1e-9)
    np.testing.assert_allclose(sized(scores) / size, plain(scores), rtol=1e-6)


def test_a_fit_can_be_evaluated_anywhere():
    fit = LogisticFit((1.0, 0.0, 0.5, 0.1), 1.0, 0.0)
    np.testing.assert_allclose(fit([0.5, 1e9, -1e9]), [0.5, 1, 0])
