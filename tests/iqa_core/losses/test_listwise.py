"""Tests of iqa_core/losses/listwise.py: formulas and a slow loop."""

from __future__ import annotations

from math import exp, log, log2

import pytest

from tests.iqa_core.losses.cases import (
    CASES,
    M,
    T,
    compare_with_slow,
    mean,
    sigmoid,
    slow_correlation,
    value,
)


def slow_listmle(m, t):
    images = range(len(m))
    return mean(
        log(exp(m[i]) + sum(exp(m[k]) for k in images if t[k] < t[i])) - m[i] for i in images
    )


def slow_listnet(m, t, temperature=0.1):
    goal = [exp(x / temperature) for x in t]
    found = [exp(x) for x in m]
    return sum(-g / sum(goal) * log(f / sum(found)) for g, f in zip(goal, found, strict=True))


def slow_ranks(m, temperature):
    images = range(len(m))
    return [1 + sum(sigmoid((m[j] - m[i]) / temperature) for j in images if j != i) for i in images]


def slow_approx_ndcg(m, t, temperature=1.0, grades=4.0):
    if len(set(t)) < 2:
        return 0.0
    gains = [2 ** (grades * (x - min(t)) / (max(t) - min(t))) - 1 for x in t]
    found = sum(
        g / log2(1 + rank) for g, rank in zip(gains, slow_ranks(m, temperature), strict=True)
    )
    ideal = sum(g / log2(1 + place) for place, g in enumerate(sorted(gains)[::-1], start=1))
    return 1 - found / ideal


def slow_soft_spearman(m, t, temperature=1.0):
    if len(set(t)) < 2:
        return 0.0
    ranks = [mean([1 + sum(y > x for y in t), sum(y >= x for y in t)]) for x in t]
    return 1 - slow_correlation(slow_ranks(m, temperature), ranks)


SLOW = {
    "listmle": slow_listmle,
    "listnet": slow_listnet,
    "approx-ndcg": slow_approx_ndcg,
    "soft-spearman": slow_soft_spearman,
}


@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name in SLOW])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_loop_with_ties_and_masks(case, seed):
    compare_with_slow(SLOW[CASES[case][0]], case, seed)


def test_listmle_is_the_plackett_luce_likelihood():
    first = exp(2) / (exp(2) + exp(1) + exp(-1))
    second = exp(-1) / (exp(-1) + exp(1))
    assert value("listmle") == pytest.approx(-(log(first) + log(second)) / 3)


def test_listmle_lets_tied_images_win_against_those_below_only():
    expected = -(log(exp(2) / (exp(2) + exp(1))) + log(exp(-1) / (exp(-1) + exp(1)))) / 3
    assert value("listmle", t=[0.9, 0.1, 0.9]) == pytest.approx(expected)


def test_listnet_is_the_cross_entropy_of_two_softmaxes():
    goal = [exp(x / 0.5) / sum(exp(y / 0.5) for y in T) for x in T]
    logs = [x - log(sum(exp(y) for y in M)) for x in M]
    expected = -(goal[0] * logs[0] + goal[1] * logs[1] + goal[2] * logs[2])
    assert value("listnet", temperature=0.5) == pytest.approx(expected)


def test_approx_ndcg_of_exact_ranks_is_ndcg():
    best, middle = 2**4 - 1, 2**2 - 1
    expected = 1 - (best / log2(2) + middle / log2(4)) / (best / log2(2) + middle / log2(3))
    assert value("approx-ndcg", temperature=0.01) == pytest.approx(expected)


def test_soft_spearman_of_exact_ranks_is_one_minus_srcc():
    # Ranks 1 2 3 against 1 3 2: rho = 1 - 6 (0 + 1 + 1) / (3 (9 - 1)).
    expected = 1 - (1 - 6 * (0 + 1 + 1) / (3 * 8))
    assert value("soft-spearman", temperature=0.01) == pytest.approx(expected)
