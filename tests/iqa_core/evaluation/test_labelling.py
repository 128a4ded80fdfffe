"""Tests of iqa_core/evaluation/labelling.py."""

from __future__ import annotations

import numpy as np

from iqa_core.evaluation.labelling import disagreement, rank_for_labelling


def rows(count, seed=0):
    """Return scores, of which most are in the middle, and those of three pairs."""
    rng = np.random.default_rng(seed)
    score = np.clip(rng.normal(0.5, 0.1, count), 0, 1)
    return score, score[:, None] + rng.normal(0, 0.05, (count, 3))


def test_the_whole_range_is_chosen_from():
    score, pairs = rows(5000)
    chosen = rank_for_labelling(score, pairs, 50)
    assert len(set(chosen.tolist())) == len(chosen) == 50
    edges = np.linspace(*np.quantile(score, [0.01, 0.99]), 11)
    counts = np.histogram(np.clip(score[chosen], edges[0], edges[-1]), edges)[0]
    assert counts.tolist() == [5] * 10
    assert np.std(score[chosen]) > 1.2 * np.std(score)


def test_half_of_them_are_those_on_which_pairs_disagree():
    score, pairs = rows(5000)
    spread = disagreement(pairs)
    chosen = rank_for_labelling(score, pairs, 40)
    inner = np.linspace(*np.quantile(score, [0.01, 0.99]), 11)[1:-1]
    interval = np.searchsorted(inner, score, side="right")
    largest = [spread[interval == number].max() for number in range(10)]
    np.testing.assert_array_equal(spread[chosen[:10]], largest)
    assert interval[chosen[10:20]].tolist() == list(range(10))
    shares = [np.mean(spread[interval == interval[row]] <= spread[row]) for row in chosen[10:20]]
    assert 0.2 < np.mean(shares) < 0.8  # random ones
    np.testing.assert_array_equal(chosen, rank_for_labelling(score, pairs, 40))
    assert set(chosen) != set(rank_for_labelling(score, pairs, 40, seed=1))


def test_rows_without_a_score_and_small_sets():
    score, pairs = rows(20)
    score[:5], pairs[5] = np.nan, np.nan
    chosen = rank_for_labelling(score, pairs, 100)
    assert sorted(chosen.tolist()) == list(range(6, 20))
    assert rank_for_labelling(np.full(3, np.nan), np.full((3, 2), np.nan), 5).tolist() == []
    equal = rank_for_labelling(np.full(4, 0.5), np.full((4, 2), 0.5), 2)
    assert len(equal) == 2
