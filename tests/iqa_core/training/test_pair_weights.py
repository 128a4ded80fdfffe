"""Tests of iqa_core/training/pair_weights.py: weights in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.pair_weights import pair_weights


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 6, (300,), generator=generator)
    noise = torch.randn(300, 4, generator=generator).double()
    quality = -levels.double()
    # Right, noisy, about nothing, and the wrong way round.
    scores = torch.stack([quality, quality, 0 * quality, -quality], 1) + noise * torch.tensor(
        [1, 4, 1, 1]
    )
    return scores.sigmoid(), levels


def test_pairs_that_are_right_count_and_those_that_are_wrong_do_not(views):
    scores, levels = views
    weights = pair_weights(scores, levels)
    assert weights.dtype == np.float32
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > weights[1] > 0
    assert weights[3] == 0
    weighted = scores @ torch.from_numpy(weights).double()
    found = known_order_agreement(torch.stack([weighted, scores.mean(1)], 1), levels)
    assert found[0] > found[1]


def test_the_solution_is_that_of_the_normal_equations(views):
    scores, levels = views[0][:, :2], views[1]
    better, worse = (levels[None, :] - levels[:, None] >= 3).nonzero(as_tuple=True)
    d = (scores[better] - scores[worse]).numpy()
    squares = d.T @ d
    expected = np.linalg.solve(squares + 0.1 * np.trace(squares) / 2 * np.eye(2), d.sum(0))
    np.testing.assert_allclose(pair_weights(scores, levels), expected / expected.sum(), rtol=1e-5)


def test_without_order_all_pairs_count_alike(views):
    scores, levels = views
    assert pair_weights(scores, torch.zeros_like(levels)).tolist() == [0.25] * 4
    assert pair_weights(-scores[:, :2], levels).tolist() == [0.5] * 2
