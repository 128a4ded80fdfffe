"""Agreement between scores and a reference such as MOS: the field's three correlations.

SciPy does the work; what is ours is what to do with missing values and too few images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

__all__ = ["krcc", "plcc", "srcc", "weighted_srcc"]


def srcc(scores: ArrayLike, reference: ArrayLike) -> float:
    """Return Spearman's rank correlation coefficient, ties averaged.

    Args:
        scores: (N,) predicted scores.
        reference: (N,) reference values, such as MOS or a distortion level.

    Returns:
        A value in [-1, 1]. Pairs with a NaN or null on either side are left out; NaN if fewer than
        two remain or one side is constant.

    Raises:
        ValueError: If the shapes differ or are not (N,).
    """
    return _correlate(stats.spearmanr, scores, reference)


def krcc(scores: ArrayLike, reference: ArrayLike) -> float:
    """Return Kendall's tau-b; arguments, result and errors as for :func:`srcc`."""
    return _correlate(stats.kendalltau, scores, reference)


def plcc(scores: ArrayLike, reference: ArrayLike) -> float:
    """Return Pearson's linear correlation; arguments, result and errors as for :func:`srcc`."""
    return _correlate(stats.pearsonr, scores, reference)


def weighted_srcc(scores: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of many resamples at once, ties averaged.

    Args:
        scores: (N,) finite.
        reference: (N,) finite.
        counts: (R, N), how often each value is in each resample; at least 0.

    Returns:
        (R,) float64, NaN where one side is constant.
    """
    weights = counts.astype(np.float64)
    total = weights.sum(axis=1, keepdims=True)
    centred = []
    for values in (scores, reference):
        ranks = _weighted_ranks(np.asarray(values, dtype=np.float64), weights)
        centred.append(ranks - (weights * ranks).sum(axis=1, keepdims=True) / total)
    x, y = centred
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
        found: np.ndarray = np.where(lengths > 0, (weights * x * y).sum(axis=1) / lengths, np.nan)
    return found


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average rank of each value in each resample, up to a constant: (R, N)."""
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    is_first = np.concatenate([[True], in_order[1:] != in_order[:-1]])
    sums = np.add.reduceat(weights[:, order], np.flatnonzero(is_first), axis=1)
    middle = np.cumsum(sums, axis=1) - sums / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = middle[:, np.cumsum(is_first) - 1]
    return ranks


def _correlate(function: Callable[..., object], scores: ArrayLike, reference: ArrayLike) -> float:
    x = np.asarray(scores, dtype=np.float64)
    y = np.asarray(reference, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"scores {x.shape} and reference {y.shape} must both be (N,), one value for each image"
        )
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return float("nan")
    return float(function(x, y).statistic)  # type: ignore[attr-defined]
