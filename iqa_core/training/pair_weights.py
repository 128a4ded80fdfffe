"""Weights of prompt pairs in closed form, from degraded copies whose order is known.

The weights are the best linear separation of better from worse copies by the pairs' scores, as in Fisher's
discriminant: (E[d d'] + ridge)^-1 E[d], with d the scores of the better copy less those of the worse one.
A weight below 0 would turn a pair's meaning round, so it is set to 0.

Source: Fisher, "The Use of Multiple Measurements in Taxonomic Problems", Annals of Eugenics 7(2), 1936.
What differs: differences of ordered copies instead of classes, a ridge, and no negative weights.
"""

from __future__ import annotations

import numpy as np
import torch

from iqa_core.training.known_order import known_differences

__all__ = ["pair_weights"]

#: Of the mean variance: pulls the weights of pairs that say the same towards each other.
_RIDGE = 0.1


def pair_weights(
    scores: torch.Tensor, levels: torch.Tensor, images: torch.Tensor | None = None
) -> np.ndarray:
    """Return how much each pair is to count in the image score.

    Args:
        scores: (M, P) pair scores of images and their copies, higher is better.
        levels: (M,) integers: 0 for an image itself, up to 5 for a severe copy.
        images: (M,) numbers of the images, to compare copies of one image only; None compares all.

    Returns:
        (P,) float32, at least 0, with the sum 1; equal where no order is known or no pair is right.
    """
    pairs = scores.shape[1]
    total, squares, count = torch.zeros(pairs).double(), torch.zeros(pairs, pairs).double(), 0
    for block in known_differences(scores.double(), levels, images):
        rows = block.reshape(-1, pairs)
        total += rows.sum(dim=0)
        squares += rows.T @ rows
        count += len(rows)
    equal = np.full(pairs, 1 / pairs, dtype=np.float32)
    if not count or not squares.trace() > 0:
        return equal
    ridge = _RIDGE * squares.trace() / pairs * torch.eye(pairs).double()
    found = torch.linalg.solve(squares + ridge, total).clamp(min=0).numpy()
    if not found.sum() > 0:
        return equal
    weights: np.ndarray = (found / found.sum()).astype(np.float32)
    return weights
