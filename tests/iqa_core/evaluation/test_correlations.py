"""The three correlations: against values by hand, against SciPy, and with values missing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_core.evaluation.correlations import krcc, plcc, srcc, weighted_srcc

ALL = pytest.mark.parametrize("metric", [srcc, krcc, plcc])


def test_values_by_hand():
    scores, reference = [1, 2, 3, 4], [1, 3, 2, 8]
    # d = (0, 1, -1, 0): 1 - 6 * sum(d^2) / (n * (n^2 - 1))
    assert srcc(scores, reference) == pytest.approx(1 - 6 * 2 / (4 * 15))
    # five of six pairs agree, one does not
    assert krcc(scores, reference) == pytest.approx((5 - 1) / 6)
    # deviations (-1.5, -0.5, 0.5, 1.5) and (-2.5, -0.5, -1.5, 4.5)
    product = 1.5 * 2.5 + 0.5 * 0.5 - 0.5 * 1.5 + 1.5 * 4.5
    assert plcc(scores, reference) == pytest.approx(product / math.sqrt(5 * 29))


def test_ties_by_hand():
    scores, reference = [1, 1, 2, 3], [1, 2, 3, 4]
    # ranks (1.5, 1.5, 3, 4): their Pearson correlation
    assert srcc(scores, reference) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # tau-b: five pairs agree, none disagrees, one of six is tied in the scores
    assert krcc(scores, reference) == pytest.approx(5 / math.sqrt(5 * 6))


@pytest.mark.parametrize(
    ("metric", "scipy"),
    [(srcc, stats.spearmanr), (krcc, stats.kendalltau), (plcc, stats.pearsonr)],
)
def test_equals_scipy(metric, scipy):
    random = np.random.default_rng(0)
    reference = random.integers(1, 6, 200)  # as levels of distortion: many ties
    scores = (reference + random.normal(0, 2, 200)).astype(np.float32)
    assert metric(scores, reference) == pytest.approx(scipy(scores, reference).statistic, abs=1e-6)
    assert 0.2 < metric(scores, reference) < 0.9


@ALL
def test_range_and_sign(metric):
    x = np.arange(10.0)
    assert metric(x, 3 * x + 1) == pytest.approx(1)
    assert metric(x, -x) == pytest.approx(-1)


@ALL
def test_missing_values_are_left_out_on_either_side(metric):
    scores = [1, 2, np.nan, 4, 5, np.inf]
    reference = [1, np.nan, 3, 8, 7, 6]
    assert metric(scores, reference) == metric([1, 4, 5], [1, 8, 7])
    assert metric(pd.Series([1, None, 4, 5]), pd.Series([1, 2, 8, 7])) == metric(
        [1, 4, 5], [1, 8, 7]
    )


@ALL
@pytest.mark.parametrize(
    ("scores", "reference"),
    [
        ([], []),
        ([1], [2]),
        ([1, np.nan], [1, 2]),
        ([3, 3, 3], [1, 2, 3]),
        ([1, 2, 3], [0.1, 0.1, 0.1]),
    ],
)
def test_nothing_to_correlate_is_nan_without_a_warning(metric, scores, reference):
    assert math.isnan(metric(scores, reference))


@ALL
def test_shapes_must_be_equal_and_flat(metric):
    with pytest.raises(ValueError, match=r"scores \(2,\) and reference \(3,\) must both be \(N,\)"):
        metric([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"scores \(2, 1\) and reference \(2, 1\) must both"):
        metric([[1], [2]], [[1], [2]])


def test_the_result_is_a_plain_float():
    assert type(srcc([1, 2, 3], [1, 2, 3])) is float


@pytest.mark.parametrize("ties", [False, True])
def test_many_resamples_at_once_equal_one_by_one(ties):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40))
    if ties:
        x, y = x.round(), y.round()
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=20)
    expected = [srcc(np.repeat(x, c), np.repeat(y, c)) for c in counts]
    np.testing.assert_allclose(weighted_srcc(x, y, counts), expected, atol=1e-12)


def test_a_constant_side_has_no_correlation_in_any_resample():
    found = weighted_srcc(np.ones(5), np.arange(5.0), np.ones((3, 5)))
    assert np.isnan(found).all()
