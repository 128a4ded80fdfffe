"""Tests of iqa_core/training/known_order.py."""

from __future__ import annotations

import math

import pytest
import torch

from iqa_core.training.known_order import (
    MIN_LEVEL_GAP,
    known_order_agreement,
    order_loss,
    reliability,
)

LEVELS = torch.tensor([0, 2, 3, 5], dtype=torch.int8)


def test_only_pairs_with_enough_between_them_count():
    assert MIN_LEVEL_GAP == 3
    margins = torch.tensor([[0.5], [-1.0], [2.0], [0.25]], dtype=torch.float64)
    # Levels 0 and 3, 0 and 5, 2 and 5; not 0 and 2, 2 and 3, 3 and 5.
    expected = sum(math.log1p(math.exp(-d)) for d in (0.5 - 2.0, 0.5 - 0.25, -1.0 - 0.25)) / 3
    assert order_loss(margins, LEVELS).item() == pytest.approx(expected, rel=1e-12)
    assert known_order_agreement(margins, LEVELS).item() == pytest.approx((1 - 1 - 1) / 3)


def test_each_pair_of_prompts_has_its_own():
    margins = torch.tensor([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]], dtype=torch.float64)
    assert known_order_agreement(margins, LEVELS).tolist() == [1.0, -1.0]
    first, second = order_loss(margins, LEVELS)
    assert first < second


def test_the_loss_is_differentiable_and_finite():
    margins = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: order_loss(m, LEVELS), margins)
    large = torch.tensor([[-100.0], [0.0], [0.0], [100.0]], requires_grad=True)
    loss = order_loss(large, LEVELS)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert large.grad.isfinite().all()


def test_nothing_known_costs_nothing():
    margins = torch.randn(3, 2, requires_grad=True)
    loss = order_loss(margins, torch.tensor([1, 2, 3]))
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert not margins.grad.any()
    assert known_order_agreement(margins, torch.tensor([1, 2, 3])).tolist() == [0.0, 0.0]


def test_reliability():
    found = reliability(torch.tensor([-0.5, 0.0, 0.5, 1.0]))
    assert found.tolist() == [0.0, 0.0, 0.25, 1.0]


def test_only_copies_of_one_image_are_compared_where_images_may_be_damaged():
    levels = torch.tensor([0, 4, 0, 4], dtype=torch.int8)
    images = torch.tensor([0, 0, 1, 1])
    # The second image is worse than the first one's copy; its own copy is worse still.
    margins = torch.tensor([[2.0], [1.0], [0.5], [0.0]], dtype=torch.float64)
    assert known_order_agreement(margins, levels, images).item() == 1
    assert known_order_agreement(margins, levels).item() == 0.5  # 3 right, 1 wrong
    within = order_loss(margins, levels, images).item()
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-0.5))) / 2
    assert within == pytest.approx(expected)


def test_blocks_are_the_sum_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 6, (60,), generator=generator)
    margins = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    better, worse = (levels[None, :] - levels[:, None] >= MIN_LEVEL_GAP).nonzero(as_tuple=True)
    expected = torch.nn.functional.softplus(margins[worse] - margins[better]).mean(0)
    torch.testing.assert_close(order_loss(margins, levels), expected)
