"""Tests of iqa_core/evaluation/significance.py: equal to published examples."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy import stats

from iqa_core.evaluation.significance import holm, meng_test, williams_test


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


def test_holm_never_falls_and_does_not_count_what_is_undefined():
    assert holm([0.02, math.nan, 0.01, 0.04]) == pytest.approx(
        [0.04, math.nan, 0.03, 0.04], nan_ok=True
    )
    assert holm([0.03, 0.02]) == [0.04, 0.04]
    assert holm([0.9, 0.8, 0.7]) == [1.0] * 3
