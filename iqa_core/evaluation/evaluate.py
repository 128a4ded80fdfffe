"""Agreement of scores with human opinion, as the field reports it: values, intervals, differences.

Methods, and where they are from:

- The four-parameter logistic: VQEG, Final Report from the Video Quality Experts Group on the
  Validation of Objective Models of Video Quality Assessment (FR-TV, phase I), 2000,
  https://vqeg.org. The five-parameter one: Sheikh, Sabir and Bovik, A Statistical Evaluation of
  Recent Full Reference Image Quality Assessment Algorithms, IEEE TIP 15(11), 2006,
  https://doi.org/10.1109/TIP.2006.881959. Both are fitted by least squares, ours by variable
  projection (Golub and Pereyra 1973): given slope and centre the rest is linear, so that only these
  two are searched, from a grid of starts.
- Intervals: percentile bootstrap. All score sets see the same resamples, so that differences are
  paired. With clusters (the pictures made from one reference), whole clusters are drawn. A curve
  is fitted again to each resample by a few steps from the one of all images.
- Z for two rank correlations with the same labels: Meng, Rosenthal and Rubin, Comparing Correlated
  Correlation Coefficients, Psychological Bulletin 111(1), 1992,
  https://doi.org/10.1037/0033-2909.111.1.172, with the variance that Bonett and Wright give for
  ranks, Psychometrika 65(1), 2000, https://doi.org/10.1007/BF02294183.
- T for two linear ones: Williams, The Comparison of Regression Variables, JRSS B 21(2), 1959, as in
  Steiger, Psychological Bulletin 87(2), 1980, https://doi.org/10.1037/0033-2909.87.2.245. Both
  tests take images to be independent.
- Holm's correction over the pairs of score sets, for each metric: Scand. J. Statist. 6(2), 1979.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import optimize, special, stats

from iqa_core.evaluation.correlations import krcc, plcc, srcc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

__all__ = [
    "METRICS",
    "Comparison",
    "Estimate",
    "Evaluation",
    "LogisticFit",
    "describe",
    "evaluate",
    "fit_logistic",
    "meng_test",
    "williams_test",
]

#: Metrics by name, with what people read. RMSE is on the labels' scale.
METRICS = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic4": "PLCC, 4-parameter logistic",
    "plcc_logistic5": "PLCC, 5-parameter logistic",
    "rmse_logistic4": "RMSE, 4-parameter logistic",
    "rmse_logistic5": "RMSE, 5-parameter logistic",
}
_COMPARED = ("srcc", "krcc", "plcc", "plcc_logistic4", "plcc_logistic5")
_CURVE_POINTS = 101

# Bounds of a logistic's log slope and centre, for standardised scores. Beyond them it is a straight
# line, a step or an exponential, which more digits would not change.
_LOW = np.array([math.log(0.01), -1000.0])
_HIGH = np.array([math.log(100.0), 1000.0])
# A resample's curve is near that of all images, and the nearer the more images there are.
_STEPS, _FEW_STEPS, _MANY_IMAGES = 6, 3, 2000
_START_SLOPES = (0.3, 1.0, 2.0, 4.0, 10.0, 30.0)
_START_QUANTILES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


# The logistic curves ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogisticFit:
    """A fitted logistic curve from scores to labels.

    Attributes:
        parameters: Of ``b2 + (b1 - b2) / (1 + exp(-(x - b3) / b4))`` (four) or of
            ``b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5`` (five), in that order.
        plcc: Pearson's correlation of fitted values and labels, in [0, 1].
        rmse: Root of the mean squared error, on the labels' scale.
    """

    parameters: tuple[float, ...]
    plcc: float
    rmse: float

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """Return the fitted values of (N,) scores, on the labels' scale."""
        x = np.asarray(scores, dtype=np.float64)
        b = self.parameters
        if len(b) == 4:
            return np.asarray(b[1] + (b[0] - b[1]) * special.expit((x - b[2]) / b[3]))
        return np.asarray(b[0] * (special.expit(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4])


def fit_logistic(
    scores: ArrayLike, labels: ArrayLike, parameters: Literal[4, 5] = 4
) -> LogisticFit | None:
    """Fit one of the field's two logistic curves by least squares.

    Args:
        scores: (N,) finite scores.
        labels: (N,) finite labels, such as MOS.
        parameters: 4 for VQEG's curve, which is monotonic; 5 for Sheikh's, which need not be.

    Returns:
        The fit, or None where there is none: no more values than parameters, or a constant side.
    """
    problem = _Problem.of(scores, labels, parameters)
    return None if problem is None else problem.fit(*problem.solve(problem.starts()))


class _Problem:
    """A least squares problem of standardised scores ``u`` and labels ``v``, (N,) each.

    The curve is ``base + rise * logistic(slope * (u - centre))``, plus ``tilt * u`` with five
    parameters. It is linear in all but log slope and centre, which are what is searched, ``at``.
    """

    def __init__(
        self,
        u: np.ndarray,
        v: np.ndarray,
        scale: tuple[float, float, float, float],
        parameters: int,
    ) -> None:
        self.u, self.v, self.parameters = u, v, parameters
        self.scale = scale  # mean and deviation of the scores, of the labels
        centred = u - u.mean()
        self._line = centred / np.linalg.norm(centred)
        self._rest = self._without_line(v)
        self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray, float]] | None = None

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike, parameters: int) -> _Problem | None:
        x = np.asarray(scores, dtype=np.float64)
        y = np.asarray(labels, dtype=np.float64)
        if len(x) <= parameters or np.ptp(x) == 0 or np.ptp(y) == 0:
            return None
        scale = (float(x.mean()), float(x.std()), float(y.mean()), float(y.std()))
        return cls((x - scale[0]) / scale[1], (y - scale[2]) / scale[3], scale, parameters)

    def resample(self, rows: np.ndarray) -> _Problem | None:
        """Return the problem of some of the rows, on the same standard scale."""
        u, v = self.u[rows], self.v[rows]
        if np.ptp(u) == 0 or np.ptp(v) == 0:
            return None
        return _Problem(u, v, self.scale, self.parameters)

    def starts(self) -> list[np.ndarray]:
        """Return the three best of a grid of log slopes and centres."""
        centres = np.quantile(self.u, _START_QUANTILES)
        grid = [np.array([math.log(s), c]) for s in _START_SLOPES for c in centres]
        return sorted(grid, key=lambda one: float(np.sum(self.residuals(one) ** 2)))[:3]

    def _without_line(self, values: np.ndarray) -> np.ndarray:
        """Return values without what a constant (and, with five parameters, u) explains."""
        values = values - values.mean()
        if self.parameters == 5:
            values = values - self._line * (self._line @ values)
        return np.asarray(values)

    def _logistic(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the logistic column, its derivative by its argument, and a log factor.

        It is counted from the side on which it is small, and scaled to 1, so that a curve whose
        centre is far outside of the data neither vanishes nor equals the constant.
        """
        if self._last is not None and np.array_equal(self._last[0], at):
            return self._last[1]
        side = 1.0 if at[1] > 0 else -1.0
        steps = side * math.exp(at[0]) * (self.u - at[1])
        highest = float(steps.max())
        top = float(special.log_expit(highest))
        if highest > -30:
            logistic = special.expit(steps) / math.exp(top)
        else:  # it would lose digits, and in the end be zero
            logistic = np.exp(special.log_expit(steps) - top)
        found = logistic, side * logistic * special.expit(-steps), top
        self._last = (at.copy(), found)  # MINPACK asks for values and derivatives in turn
        return found

    def _rise(self, logistic: np.ndarray) -> tuple[np.ndarray, float]:
        """Return what only the logistic column explains, and its coefficient."""
        alone = self._without_line(logistic)
        squares = float(alone @ alone)
        if squares <= 1e-26 * float(logistic @ logistic):  # it adds nothing, but rounding
            return np.zeros_like(alone), 0.0
        return alone, float(alone @ self._rest) / squares

    def residuals(self, at: np.ndarray) -> np.ndarray:
        """Return (N,) residuals of the best curve with this log slope and centre."""
        alone, rise = self._rise(self._logistic(np.clip(at, _LOW, _HIGH))[0])
        return np.asarray(self._rest - rise * alone)

    def jacobian(self, at: np.ndarray) -> np.ndarray:
        """Return the (N, 2) Jacobian of the residuals in Kaufman's form: its gradient is exact."""
        at = np.clip(at, _LOW, _HIGH)
        logistic, slope, _ = self._logistic(at)
        alone, rise = self._rise(logistic)
        bump = rise * math.exp(at[0]) * slope
        squares = float(alone @ alone) or 1.0
        columns = []
        for raw in (bump * (self.u - at[1]), -bump):
            column = self._without_line(raw)
            columns.append(alone * (float(alone @ column) / squares) - column)
        return np.stack(columns, axis=1)

    def solve(
        self, starts: Sequence[np.ndarray], tolerance: float = 1e-12, steps: int = 200
    ) -> tuple[np.ndarray, float]:
        """Return the best log slope and centre, and the sum of squares there."""
        best, squares = starts[0], math.inf
        for start in starts:
            at, _, told, *_ = optimize.leastsq(  # MINPACK's, without least_squares' overhead
                self.residuals,
                start,
                Dfun=self.jacobian,
                full_output=True,
                ftol=tolerance,
                xtol=tolerance,
                gtol=tolerance,
                maxfev=steps,
            )
            reached = float(told["fvec"] @ told["fvec"])
            if reached < squares:
                best, squares = at, reached
        return np.clip(best, _LOW, _HIGH), squares

    def fit(self, at: np.ndarray, squares: float) -> LogisticFit:
        """Return the curve at a log slope and centre on the scale of scores and labels."""
        side = 1.0 if at[1] > 0 else -1.0
        beyond = -16 - self._logistic(at)[2]
        if beyond > 0:  # an exponential: a nearer centre is the same curve, with sizes that fit
            at = np.array([at[0], at[1] - side * beyond / math.exp(at[0])])
        logistic, _, top = self._logistic(at)
        rise = self._rise(logistic)[1]
        left = self.v - rise * logistic
        tilt = 0.0
        if self.parameters == 5:
            tilt = float(self._line @ left) / float(self._line @ self.u)
        x_mean, x_scale, y_mean, y_scale = self.scale
        base = y_mean + y_scale * float(np.mean(left - tilt * self.u))
        rise *= y_scale * math.exp(-top)
        if side < 0:  # from the other side it falls by as much
            base, rise = base + rise, -rise
        slope, centre = math.exp(at[0]) / x_scale, x_mean + x_scale * float(at[1])
        if self.parameters == 4:
            b: tuple[float, ...] = (base + rise, base, centre, 1 / slope)
        else:
            tilt *= y_scale / x_scale
            b = (rise, slope, centre, tilt, base + rise / 2 - tilt * x_mean)
        return LogisticFit(b, *self.quality(squares))

    def quality(self, squares: float) -> tuple[float, float]:
        """Return PLCC and RMSE of a least squares curve with an intercept, from its squares."""
        share = squares / float(np.sum((self.v - self.v.mean()) ** 2))
        return math.sqrt(max(0.0, 1 - share)), self.scale[3] * math.sqrt(squares / len(self.v))

    def curve(self, at: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the curve at a log slope and centre, at (G,) scores, on the labels' scale."""
        return self.fit(at, 0.0)(scores)


# Significance -------------------------------------------------------------------------------------


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


def _holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method; NaN stays, and does not count."""
    order = sorted((i for i, p in enumerate(values) if math.isfinite(p)), key=lambda i: values[i])
    corrected, largest = list(values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * values[i]))
        corrected[i] = largest
    return corrected


# The evaluation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval; NaN where it is undefined."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """The difference of a metric between two score sets, on the same images.

    Attributes:
        first: Name of the one.
        second: Name of the other.
        metric: Key of :data:`METRICS`.
        difference: ``first`` minus ``second``, with its paired bootstrap interval.
        p_bootstrap: Two-sided p-value of the paired bootstrap; NaN without one.
        test: ``meng`` for SRCC, ``williams`` for PLCC, else empty.
        p_test: Its two-sided p-value.
        p_holm: ``p_test`` (``p_bootstrap`` where there is no test) corrected for the number of pairs.
    """

    first: str
    second: str
    metric: str
    difference: Estimate
    p_bootstrap: float
    test: str
    p_test: float
    p_holm: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a set of images says about one or more sets of scores.

    Attributes:
        count: Images used.
        clusters: Clusters that the bootstrap drew, or None if it drew images.
        resamples: Bootstrap resamples.
        confidence: Share of the resamples that an interval holds.
        seed: Seed of the bootstrap.
        metrics: Score set -> metric -> estimate.
        fits: Score set -> the 4- and the 5-parameter fit, each None where there is none.
        curves: Score set -> (101, 4) of score, 4-parameter curve, its lower and its upper bound.
        comparisons: Each pair of score sets in each metric but RMSE.
        groups: Value of the grouping column -> the evaluation of its images.
    """

    count: int
    clusters: int | None
    resamples: int
    confidence: float
    seed: int
    metrics: dict[str, dict[str, Estimate]]
    fits: dict[str, tuple[LogisticFit | None, LogisticFit | None]]
    curves: dict[str, np.ndarray]
    comparisons: list[Comparison]
    groups: dict[str, Evaluation] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the curves, as JSON holds it: NaN is null."""
        document: dict[str, Any] = {
            "images": self.count,
            "bootstrap": {
                "resamples": self.resamples,
                "clusters": self.clusters,
                "confidence": self.confidence,
                "seed": self.seed,
            },
            "metrics": {
                name: {key: _json(vars(estimate)) for key, estimate in metrics.items()}
                for name, metrics in self.metrics.items()
            },
            "logistic_parameters": {
                name: [None if fit is None else list(fit.parameters) for fit in fits]
                for name, fits in self.fits.items()
            },
            "comparisons": [
                _json({**vars(one), "difference": _json(vars(one.difference))})
                for one in self.comparisons
            ],
        }
        if self.groups:
            document["groups"] = {name: group.as_dict() for name, group in self.groups.items()}
        return document


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def evaluate(
    scores: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    lower_is_better: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Evaluate score sets against labels of the same images.

    Args:
        scores: Name -> (N,) finite scores.
        labels: (N,) finite labels, such as MOS.
        groups: (N,) values, such as kinds of distortion, each of which is evaluated by itself too.
        clusters: (N,) values, such as reference pictures: the bootstrap draws all images of one
            together. By default it draws single images.
        lower_is_better: Whether a low label is a good image, as DMOS has it. Correlations are
            those with the labels turned round, so that a good model's are positive; RMSE and the
            logistic curves are the same either way.
        resamples: Bootstrap resamples; 0 leaves intervals out.
        confidence: Share of the resamples that an interval holds, in (0, 1).
        seed: Seed of the bootstrap.

    Returns:
        Values, intervals and comparisons. Whatever is undefined (a constant side, too few images)
        is NaN.

    Raises:
        ValueError: If the arrays differ in length.
    """
    y = np.asarray(labels, dtype=np.float64)
    sets = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    of_cluster = (
        None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    )
    for name, values in sets.items():
        if values.shape != y.shape or y.ndim != 1:
            raise ValueError(
                f"scores of {name} {values.shape} and labels {y.shape} must both be (N,), one value "
                "for each image"
            )
    evaluators = {name: _Evaluator(values, y, lower_is_better) for name, values in sets.items()}
    drawn = _draw(len(y), of_cluster, resamples, seed)
    each = [[one.resample(rows) for one in evaluators.values()] for rows in drawn]
    boot = np.array([[m for m, _ in row] for row in each]).reshape(-1, len(sets), len(METRICS))
    curves = np.array([[c for _, c in row] for row in each]).reshape(-1, len(sets), _CURVE_POINTS)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    found = Evaluation(
        count=len(y),
        clusters=None if of_cluster is None else len(np.unique(of_cluster)),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        metrics={
            name: {
                key: Estimate(value, *_interval(boot[:, i, k], tails))
                for k, (key, value) in enumerate(one.metrics.items())
            }
            for i, (name, one) in enumerate(evaluators.items())
        },
        fits={name: one.fits for name, one in evaluators.items()},
        curves={
            name: one.curve([_interval(curves[:, i, g], tails) for g in range(_CURVE_POINTS)])
            for i, (name, one) in enumerate(evaluators.items())
        },
        comparisons=_compare(evaluators, boot, tails),
    )
    if groups is not None:
        found.groups.update(
            {
                str(value): evaluate(
                    {name: values[rows] for name, values in sets.items()},
                    y[rows],
                    clusters=None if of_cluster is None else of_cluster[rows],
                    lower_is_better=lower_is_better,
                    resamples=resamples,
                    confidence=confidence,
                    seed=seed,
                )
                for value, rows in _groups(np.asarray(groups))
            }
        )
    return found


def _groups(values: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    for value in np.unique(values):
        yield value, np.flatnonzero(values == value)


def _draw(
    count: int, of_cluster: np.ndarray | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield the rows of each resample; nothing where there are fewer than two things to draw."""
    rng = np.random.default_rng(seed)
    if of_cluster is None:
        yield from (rng.integers(count, size=count) for _ in range(resamples if count > 1 else 0))
        return
    members = [rows for _, rows in _groups(of_cluster)]
    for _ in range(resamples if len(members) > 1 else 0):
        yield np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])


def _interval(values: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, tails)
    return float(low), float(high)


class _Evaluator:
    """One score set: its metrics, and those of resamples at a fraction of the cost."""

    def __init__(self, x: np.ndarray, y: np.ndarray, lower_is_better: bool) -> None:
        self.x, self.y = x, y
        self.up = -y if lower_is_better else y
        self._ranks = [_Ranks(values) for values in (x, self.up)]
        self._problems = [_Problem.of(x, y, parameters) for parameters in (4, 5)]
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
        self._grid = np.linspace(x.min(), x.max(), _CURVE_POINTS) if len(x) else np.zeros(0)

    def resample(self, rows: np.ndarray) -> tuple[list[float], np.ndarray]:
        """Return the metrics of some rows, and the 4-parameter curve fitted to them."""
        x, up = self.x[rows], self.up[rows]
        curve = np.full(_CURVE_POINTS, np.nan)
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
        ranks = [one.of(rows) for one in self._ranks]
        values = [_pearson(*ranks), krcc(x, up), _pearson(x, up), *correlations, *errors]
        return values, curve

    def curve(self, bounds: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return (101, 4): score, curve, lower and upper bound; none where there is no fit."""
        if self.fits[0] is None:
            return np.zeros((0, 4))
        return np.column_stack([self._grid, self.fits[0](self._grid), np.array(bounds)])


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation without a p-value, which takes scipy most of its time."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
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


def _compare(
    evaluators: Mapping[str, _Evaluator], boot: np.ndarray, tails: tuple[float, float]
) -> list[Comparison]:
    tests: dict[str, tuple[str, Callable[..., tuple[float, float]], Callable[..., float]]] = {
        "srcc": ("meng", functools.partial(meng_test, ranks=True), srcc),
        "plcc": ("williams", williams_test, plcc),
    }
    found = []
    for metric in _COMPARED:
        k = list(METRICS).index(metric)
        name, test, correlate = tests.get(metric, ("", None, None))
        rows: list[tuple[str, str, Estimate, float, float]] = []
        for (i, (a, first)), (j, (b, second)) in itertools.combinations(
            enumerate(evaluators.items()), 2
        ):
            differences = boot[:, i, k] - boot[:, j, k]
            difference = Estimate(
                first.metrics[metric] - second.metrics[metric], *_interval(differences, tails)
            )
            p_test = math.nan
            if test is not None and correlate is not None:
                between = correlate(first.x, second.x)
                pair = (first.metrics[metric], second.metrics[metric])
                p_test = test(*pair, between, len(first.y))[1]
            rows.append((a, b, difference, _p_bootstrap(differences), p_test))
        holm = _holm([p_test if test is not None else p for *_, p, p_test in rows])
        found += [
            Comparison(a, b, metric, difference, p, name, p_test, corrected)
            for (a, b, difference, p, p_test), corrected in zip(rows, holm, strict=True)
        ]
    return found


def _p_bootstrap(differences: np.ndarray) -> float:
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return math.nan
    beyond = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (1 + beyond) / (1 + len(finite)))


# Text ---------------------------------------------------------------------------------------------


def describe(evaluation: Evaluation) -> list[str]:
    """Return an evaluation as lines for people: metrics, differences, groups, warnings."""
    lines = [f"{evaluation.count:,} images; {_describe_bootstrap(evaluation)}", ""]
    names = list(evaluation.metrics)
    lines += _align(
        [
            ["", *names],
            *(
                [title, *(_cell(key, evaluation.metrics[name][key]) for name in names)]
                for key, title in METRICS.items()
            ),
        ]
    )
    if evaluation.comparisons:
        lines += ["", "Differences, on the same images (p corrected for the number of pairs):"]
        lines += _align([_describe_comparison(one) for one in evaluation.comparisons])
    if evaluation.groups:
        shown = ("srcc", "plcc_logistic4")
        header = ["", "images", *(f"{METRICS[key]}: {name}" for key in shown for name in names)]
        rows = [
            [
                value,
                f"{group.count:,}",
                *(_cell(key, group.metrics[name][key]) for key in shown for name in names),
            ]
            for value, group in evaluation.groups.items()
        ]
        lines += ["", *_align([header, *rows])]
    for name, metrics in evaluation.metrics.items():
        if metrics["srcc"].value < 0:
            lines += [
                "",
                f"{name} falls as the labels rise. If a low label is a good image (DMOS), give "
                "--lower-is-better. The logistic curves bend either way, so their PLCC is positive.",
            ]
    return lines


def _describe_bootstrap(evaluation: Evaluation) -> str:
    if not evaluation.resamples:
        return "no intervals"
    drawn = "images" if evaluation.clusters is None else f"{evaluation.clusters:,} clusters"
    return (
        f"{100 * evaluation.confidence:g}% bootstrap intervals from {evaluation.resamples:,} resamples of "
        f"{drawn}"
    )


def _describe_comparison(one: Comparison) -> list[str]:
    found = f"{one.difference.value:+.4f}"
    if math.isfinite(one.difference.low):
        found += f" [{one.difference.low:+.4f}, {one.difference.high:+.4f}]"
    titles = {"meng": "Meng-Rosenthal-Rubin", "williams": "Williams", "": "bootstrap"}
    p = "undefined" if math.isnan(one.p_holm) else f"{one.p_holm:.2g}"
    return [
        METRICS[one.metric],
        f"{one.first} - {one.second}",
        found,
        f"p {p} ({titles[one.test]})",
    ]


def _cell(key: str, estimate: Estimate) -> str:
    digits = 4 if "rmse" not in key or abs(estimate.value) < 1 else 3
    if math.isnan(estimate.value):
        return "undefined"
    interval = ""
    if math.isfinite(estimate.low):
        interval = f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{estimate.value:.{digits}f}{interval}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
