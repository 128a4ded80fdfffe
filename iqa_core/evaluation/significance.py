"""Whether two score sets agree with the same labels significantly differently.

- Z for two rank correlations with the same labels: Meng, Rosenthal and Rubin, Comparing Correlated
  Correlation Coefficients, Psychological Bulletin 111(1), 1992,
  https://doi.org/10.1037/0033-2909.111.1.172, with the variance that Bonett and Wright give for
  ranks, Psychometrika 65(1), 2000, https://doi.org/10.1007/BF02294183.
- T for two linear ones: Williams, The Comparison of Regression Variables, JRSS B 21(2), 1959, as in
  Steiger, Psychological Bulletin 87(2), 1980, https://doi.org/10.1037/0033-2909.87.2.245.
- Holm's correction for several comparisons: Scand. J. Statist. 6(2), 1979.

Both tests assume that images are independent: where several are of one reference, they are not used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["holm", "meng_test", "williams_test"]


def meng_test(
    first: float, second: float, between: float, count: int, *, ranks: bool = False
) -> tuple[float, float]:
    """Compare two correlations with the same variable, by Meng, Rosenthal and Rubin.

    Args:
        first: Correlation of one predictor with the labels.
        second: Correlation of the other predictor with the labels.
        between: Correlation of the two predictors with each other.
        count: Number of images; at least 4.
        ranks: Whether they are Spearman's, whose variance is larger by Bonett and Wright's
            ``1 + r**2 / 2``. Without it, equally good models differ too often.

    Returns:
        Z, positive where the first is larger, and its two-sided p-value. NaN if undefined.
    """
    if count < 4 or not all(map(math.isfinite, (first, second, between))):
        return math.nan, math.nan
    if math.isclose(first, second, abs_tol=1e-12):
        return 0.0, 1.0
    if max(abs(first), abs(second)) >= 1 or between >= 1:
        return math.nan, math.nan
    mean_square = (first**2 + second**2) / 2
    f = min(1.0, (1 - between) / (2 * (1 - mean_square)))
    h = (1 - f * mean_square) / (1 - mean_square)
    difference = math.atanh(first) - math.atanh(second)
    z = difference * math.sqrt((count - 3) / (2 * (1 - between) * h))
    z /= math.sqrt(1 + mean_square / 2) if ranks else 1
    return z, 2 * float(stats.norm.sf(abs(z)))


def williams_test(first: float, second: float, between: float, count: int) -> tuple[float, float]:
    """Compare two correlations with the same variable, by Williams' t with ``count - 3`` degrees.

    Arguments and result as for :func:`meng_test`, with t for Z.
    """
    if count < 4 or not all(map(math.isfinite, (first, second, between))):
        return math.nan, math.nan
    if math.isclose(first, second, abs_tol=1e-12):
        return 0.0, 1.0
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    mean = (first + second) / 2
    spread = 2 * determinant * (count - 1) / (count - 3) + mean**2 * (1 - between) ** 3
    if spread <= 0 or between >= 1:
        return math.nan, math.nan
    t = (first - second) * math.sqrt((count - 1) * (1 + between) / spread)
    return t, 2 * float(stats.t.sf(abs(t), count - 3))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method; NaN stays NaN and is not counted."""
    order = sorted((i for i, p in enumerate(values) if math.isfinite(p)), key=lambda i: values[i])
    corrected, largest = list(values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * values[i]))
        corrected[i] = largest
    return corrected
