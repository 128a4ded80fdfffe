"""Pairs of rows with a high cosine, all of them: every row is compared with every other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["exact_pairs", "unit_rows"]

#: Rows on either side of one matrix product: its result has 32 MB.
_ROWS, _OTHERS = 1024, 8192


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Return (N, D) features as float32 of length 1; stored float16 ones are it only nearly."""
    wide = features.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: np.ndarray = wide / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def exact_pairs(features: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find all pairs by matrix products, in blocks; N^2 D / 2 multiplications.

    >>> features = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], np.float32)
    >>> [(first.tolist(), second.tolist()) for first, second in exact_pairs(features, 0.9)]
    [([1], [2])]

    Args:
        features: (N, D), finite; they need not be of length 1.
        threshold: The smallest cosine of a pair.

    Yields:
        Positions (K,) of the first and (K,) of the second rows of K pairs, first < second.
    """
    for top in range(0, len(features), _ROWS):
        rows = unit_rows(features[top : top + _ROWS])
        for left in range(top, len(features), _OTHERS):
            others = unit_rows(features[left : left + _OTHERS])
            first, second = np.nonzero(rows @ others.T >= threshold)
            first, second = first + top, second + left
            ahead = first < second
            if ahead.any():
                yield first[ahead], second[ahead]
