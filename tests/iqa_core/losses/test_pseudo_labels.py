"""Tests of iqa_core/losses/pseudo_labels.py: formulas, a slow loop, ties."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from iqa_core.losses.pseudo_labels import pseudo_label_loss, pseudo_labels
from tests.iqa_core.losses.cases import (
    CASES,
    M,
    compare_with_slow,
    mean,
    sigmoid,
    value,
)


def slow_upl(m, t, top=16):
    top = min(top, len(t) // 2)
    positive = {i for i, x in enumerate(t) if sum(y >= x for y in t) <= top}
    negative = {i for i, x in enumerate(t) if sum(y <= x for y in t) <= top}
    return mean(
        [-log(sigmoid(m[i])) for i in positive - negative]
        + [-log(sigmoid(-m[i])) for i in negative - positive]
    )


SLOW = {
    "upl": slow_upl,
}


@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name in SLOW])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_loop_with_ties_and_masks(case, seed):
    compare_with_slow(SLOW[CASES[case][0]], case, seed)


def test_upl_is_the_cross_entropy_of_the_most_confident_images():
    assert value("upl", top=1) == pytest.approx((log(1 + exp(-2)) + log(1 + exp(1))) / 2)


def test_pseudo_labels_are_the_extremes():
    targets = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.8])
    assert pseudo_labels(targets, top=1).tolist() == [-1, 1, 0, 0, 0]
    assert pseudo_labels(targets, top=2).tolist() == [-1, 1, 0, -1, 1]
    mask = torch.tensor([True, False, True, True, True])
    assert pseudo_labels(targets, mask, top=1).tolist() == [-1, 0, 0, 0, 1]


def test_pseudo_labels_take_at_most_half_and_cut_no_tie():
    assert pseudo_labels(torch.tensor([1.0, 2.0, 3.0]), top=2).tolist() == [-1, 0, 1]
    assert pseudo_labels(torch.tensor([1.0, 3.0, 3.0]), top=1).tolist() == [-1, 0, 0]
    assert pseudo_labels(torch.tensor([2.0, 2.0, 2.0]), top=1).tolist() == [0, 0, 0]


def test_pseudo_labels_of_a_data_set_train_any_of_its_lists():
    labels = torch.tensor([1, -1, 0])
    expected = (log(1 + exp(-2)) + log(1 + exp(1))) / 2
    assert pseudo_label_loss(torch.tensor(M), labels).item() == pytest.approx(expected)
