"""Tests of iqa_core/losses/pairwise.py: formulas, a slow loop, the choice of pairs."""

from __future__ import annotations

import math
from itertools import combinations
from math import exp, log, sqrt

import pytest
import torch

from iqa_core.losses.pairwise import confident_pairs, ranknet
from iqa_core.losses.table import LOSSES, make_loss
from tests.iqa_core.losses.cases import (
    CASES,
    M,
    T,
    compare_with_slow,
    mean,
    sigmoid,
    value,
)


def slow_pairs(t, quantile=0.0, ties=False):
    pairs = list(combinations(range(len(t)), 2))
    if not pairs:
        return []
    smallest = sorted(abs(t[i] - t[j]) for i, j in pairs)[math.floor(quantile * len(pairs))]
    return [
        (i, j) if t[i] >= t[j] else (j, i)
        for i, j in pairs
        if (t[i] != t[j] and abs(t[i] - t[j]) >= smallest) or (ties and quantile == 0)
    ]


def slow_ranknet(m, t, temperature=0.0, confident=0.0):
    def one(i, j):
        p = sigmoid((t[i] - t[j]) / temperature) if temperature else 1.0
        q = sigmoid(m[i] - m[j])
        return -p * log(q) - (1 - p) * log(1 - q)

    return mean(one(i, j) for i, j in slow_pairs(t, confident, ties=temperature > 0))


def slow_margin(m, t, margin=1.0, confident=0.0):
    return mean(max(0.0, margin - (m[i] - m[j])) for i, j in slow_pairs(t, confident))


def slow_fidelity(m, t, temperature=0.0, confident=0.0):
    def one(i, j):
        p = sigmoid((t[i] - t[j]) / temperature) if temperature else 1.0
        q = sigmoid(m[i] - m[j])
        return 1 - sqrt(p * q) - sqrt((1 - p) * (1 - q))

    return mean(one(i, j) for i, j in slow_pairs(t, confident, ties=temperature > 0))


SLOW = {
    "ranknet": slow_ranknet,
    "margin": slow_margin,
    "fidelity": slow_fidelity,
}


@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name in SLOW])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_loop_with_ties_and_masks(case, seed):
    compare_with_slow(SLOW[CASES[case][0]], case, seed)


def test_ranknet_is_the_mean_log_of_pair_probabilities():
    expected = (log(1 + exp(-(2 - 1))) + log(1 + exp(-(2 + 1))) + log(1 + exp(-(-1 - 1)))) / 3
    assert value("ranknet") == pytest.approx(expected)


def test_ranknet_with_soft_labels_weighs_both_orders():
    p = 1 / (1 + exp(-(0.9 - 0.1) / 0.2))
    q = 1 / (1 + exp(-(2 - 1)))
    expected = -p * log(q) - (1 - p) * log(1 - q)
    assert value("ranknet", M[:2], T[:2], temperature=0.2) == pytest.approx(expected)
    tie = -0.5 * log(q) - 0.5 * log(1 - q)
    assert value("ranknet", M[:2], [0.5, 0.5], temperature=0.2) == pytest.approx(tie)


def test_margin_is_the_mean_hinge():
    assert value("margin") == pytest.approx(((1 - 1) + 0 + (1 + 2)) / 3)
    assert value("margin", margin=4.0) == pytest.approx(((4 - 1) + (4 - 3) + (4 + 2)) / 3)


def test_fidelity_is_one_minus_the_root_of_the_right_order():
    q = [1 / (1 + exp(-d)) for d in (1, 3, -2)]
    assert value("fidelity") == pytest.approx((3 - sqrt(q[0]) - sqrt(q[1]) - sqrt(q[2])) / 3)


def test_confident_pairs_are_those_that_differ_most():
    # Differences: 0-1 1, 0-2 4, 0-3 9, 1-2 3, 1-3 8, 2-3 5.
    targets = torch.tensor([0.0, 1.0, 4.0, 9.0])

    def chosen(quantile):
        pairs = confident_pairs(targets, quantile=quantile)
        assert torch.equal(pairs, pairs.mT)
        return {tuple(pair) for pair in pairs.triu().nonzero().tolist()}

    assert chosen(0.0) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert chosen(0.3) == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert chosen(0.5) == {(0, 3), (1, 3), (2, 3)}
    assert chosen(0.99) == {(0, 3)}


def test_confident_pairs_leave_out_ties_and_masked_images():
    targets = torch.tensor([1.0, 1.0, 2.0, torch.nan])
    mask = torch.tensor([True, True, True, False])
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[[0, 1, 2, 2], [2, 2, 0, 1]] = True
    for quantile in (0.0, 0.5, 0.9):
        assert torch.equal(confident_pairs(targets, mask, quantile=quantile), expected)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.kind == "pairwise"])
def test_pairs_can_be_chosen(name):
    """Only image 1 against its degraded copy 2, say; given on one side of the diagonal or both."""
    pairs = torch.zeros(3, 3, dtype=torch.bool)
    pairs[2, 1] = True
    margins, targets = torch.tensor(M), torch.tensor(T)
    expected = make_loss(name)(margins[1:], targets[1:])
    for given in (pairs, pairs.mT, pairs | pairs.mT):
        found = LOSSES[name].function(margins, targets, None, given)
        torch.testing.assert_close(found, expected)
    assert LOSSES[name].function(margins, targets, None, ~(pairs | pairs.mT)) != expected


def test_pairs_are_checked():
    with pytest.raises(ValueError, match=r"pairs have shape \(2, 2\).* must be \(..., 3, 3\)"):
        ranknet(torch.zeros(3), torch.zeros(3), None, torch.ones(2, 2) > 0)
