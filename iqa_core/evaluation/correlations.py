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

__all__ = ["krcc", "plcc", "srcc"]


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


def _correlate(function: Callable[..., object], scores: ArrayLike, reference: ArrayLike) -> float:
    x = np.asarray(scores, dtype=np.float64)
    y = np.asarray(reference, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"scores {x.shape} and reference {y.shape} must both be (N,), one value for each image"
        )
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(function(x, y).statistic)  # type: ignore[attr-defined]
