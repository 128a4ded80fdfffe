"""Percentile bootstrap: the resamples, the metrics of each, and intervals and p-values from them.

All score sets see the same resamples, so that differences are paired. With clusters (the pictures made
from one reference), whole clusters are drawn. A curve is refitted to each resample by a few steps from
the curve of all images.

Few clusters make percentile intervals too narrow. So their tails are widened as Student's t is wider
than the normal distribution: Hesterberg, "What Teachers Should Know About the Bootstrap", The American
Statistician 69(4), 2015, https://doi.org/10.1080/00031305.2015.1089789, section 3.2 (expanded
percentile intervals). P-values are those whose interval just touches 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from iqa_core.evaluation.correlations import krcc, plcc, srcc
from iqa_core.evaluation.logistic import LogisticProblem, size_of
from iqa_core.evaluation.results import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "CURVE_POINTS",
    "Resampler",
    "bootstrap_p_value",
    "draw_resamples",
    "expanded_tails",
    "percentile_interval",
]

#: Points of a fitted curve.
CURVE_POINTS = 101

# A resample's curve is close to that of all images, and the closer the more images there are.
_STEPS, _FEW_STEPS, _MANY_IMAGES = 6, 3, 2000


def draw_resamples(
    count: int, cluster: np.ndarray | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield the rows of each resample.

    Args:
        count: Number N of images.
        cluster: (N,) number of each image's cluster, or None to draw single images.
        resamples: Resamples to draw.
        seed: Seed of the generator.

    Yields:
        Row numbers; nothing where there are fewer than two images, or clusters, to draw from.
    """
    rng = np.random.default_rng(seed)
    if cluster is None:
        yield from (rng.integers(count, size=count) for _ in range(resamples if count > 1 else 0))
        return
    members = [np.flatnonzero(cluster == value) for value in np.unique(cluster)]
    for _ in range(resamples if len(members) > 1 else 0):
        yield np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])


def percentile_interval(values: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    """Return two quantiles of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, tails)
    return float(low), float(high)


def expanded_tails(confidence: float, clusters: int | None) -> tuple[float, float]:
    """Return the two quantiles of an interval, farther out where few clusters were drawn.

    Args:
        confidence: In (0, 1).
        clusters: Their number, or None where images were drawn: many, so nothing is widened.
    """
    low = (1 - confidence) / 2
    if clusters is not None and clusters > 1:
        t = stats.t.ppf(low, clusters - 1)
        low = float(stats.norm.cdf(t * math.sqrt(clusters / (clusters - 1))))
    return low, 1 - low


def bootstrap_p_value(differences: np.ndarray, clusters: int | None = None) -> float:
    """Return the two-sided p-value of paired differences; NaN without a finite one.

    Args:
        differences: Of the resamples.
        clusters: As for :func:`expanded_tails`.
    """
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return math.nan
    beyond = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(finite)))
    if clusters is None or clusters < 2:
        return p
    z = stats.norm.isf(p / 2) * math.sqrt((clusters - 1) / clusters)
    return min(1.0, 2 * float(stats.t.sf(z, clusters - 1)))


class Resampler:
    """The metrics of a score set, and of resamples of it at a fraction of the cost.

    Args:
        x: (N,) scores.
        y: (N,) labels.
        lower_is_better: Whether a low label is a good image.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, lower_is_better: bool) -> None:
        self.x, self.y = x, y
        self.up = -y if lower_is_better else y
        self._ranks = [_Ranks(values) for values in (x, self.up)]
        self._problems = [LogisticProblem.of(x, y, parameters) for parameters in (4, 5)]
        self._best = [
            None if problem is None else problem.solve(problem.starts())
            for problem in self._problems
        ]
        four, five = (
            problem.fit(*best) if problem is not None and best is not None else None
            for problem, best in zip(self._problems, self._best, strict=True)
        )
        self.fits = (four, five)
        self.metrics = dict(
            zip(
                METRICS,
                (
                    srcc(x, self.up),
                    krcc(x, self.up),
                    plcc(x, self.up),
                    *(math.nan if fit is None else fit.plcc for fit in self.fits),
                    *(math.nan if fit is None else fit.rmse for fit in self.fits),
                ),
                strict=True,
            )
        )
        self._grid = np.linspace(x.min(), x.max(), CURVE_POINTS) if len(x) else np.zeros(0)

    def resample(self, rows: np.ndarray) -> tuple[list[float], np.ndarray]:
        """Return the metrics of some rows, and the 4-parameter curve fitted to them."""
        x, up = self.x[rows], self.up[rows]
        curve = np.full(CURVE_POINTS, np.nan)
        correlations, errors = [math.nan] * 2, [math.nan] * 2
        for i, (whole, best) in enumerate(zip(self._problems, self._best, strict=True)):
            problem = None if whole is None else whole.resample(rows)
            if whole is None or problem is None or best is None:
                continue
            steps = _FEW_STEPS if len(rows) > _MANY_IMAGES else _STEPS
            at, squares = problem.solve([best[0]], tolerance=1e-6, steps=steps)
            correlations[i], errors[i] = problem.quality(squares)
            if i == 0:
                curve = problem.curve(at, self._grid)
        ranks = [side.of(rows) for side in self._ranks]
        values = [_pearson(*ranks), krcc(x, up), _pearson(x, up), *correlations, *errors]
        return values, curve

    def curve(self, bounds: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return (101, 4): score, curve, lower and upper bound; (0, 4) where there is no fit."""
        if self.fits[0] is None:
            return np.zeros((0, 4))
        return np.column_stack([self._grid, self.fits[0](self._grid), np.array(bounds)])


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation without the p-value, which takes most of SciPy's time."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x / size_of(x), y / size_of(y)
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1, 1))


class _Ranks:
    """Average ranks of resamples without sorting each: Spearman's is Pearson's of these."""

    def __init__(self, values: np.ndarray) -> None:
        distinct, self._place = np.unique(values, return_inverse=True)
        self._count = len(distinct)

    def of(self, rows: np.ndarray) -> np.ndarray:
        place = self._place[rows]
        counts = np.bincount(place, minlength=self._count)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
