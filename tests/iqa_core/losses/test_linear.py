"""Tests of iqa_core/losses/linear.py: the formula, a slow loop, equal margins."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from iqa_core.losses.table import make_loss
from tests.iqa_core.losses.cases import (
    CASES,
    compare_with_slow,
    slow_correlation,
    value,
)


def slow_plcc(m, t):
    return 1 - slow_correlation(m, t) if len(set(t)) > 1 else 0.0


SLOW = {
    "plcc": slow_plcc,
}


@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name in SLOW])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_loop_with_ties_and_masks(case, seed):
    compare_with_slow(SLOW[CASES[case][0]], case, seed)


def test_plcc_is_one_minus_the_correlation():
    m = [2 - 2 / 3, 1 - 2 / 3, -1 - 2 / 3]
    t = [0.4, -0.4, 0.0]
    covariance = m[0] * t[0] + m[1] * t[1] + m[2] * t[2]
    expected = 1 - covariance / sqrt(m[0] ** 2 + m[1] ** 2 + m[2] ** 2) / sqrt(2 * 0.4**2)
    assert value("plcc") == pytest.approx(expected)


@pytest.mark.parametrize("name", ["plcc", "soft-spearman"])
def test_equal_margins_are_uncorrelated_and_have_no_gradient(name):
    margins = torch.full((7,), 0.1, requires_grad=True)
    found = make_loss(name)(margins, torch.arange(7))
    assert found == 1
    assert (torch.autograd.grad(found, margins)[0] == 0).all()
