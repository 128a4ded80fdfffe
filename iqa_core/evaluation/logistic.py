"""The field's two logistic curves from scores to labels, fitted by least squares.

The four-parameter logistic: VQEG, Final Report from the Video Quality Experts Group on the Validation
of Objective Models of Video Quality Assessment (FR-TV, phase I), 2000, https://vqeg.org. The
five-parameter one: Sheikh, Sabir and Bovik, A Statistical Evaluation of Recent Full Reference Image
Quality Assessment Algorithms, IEEE TIP 15(11), 2006, https://doi.org/10.1109/TIP.2006.881959.

What differs: the fit is by variable projection (Golub and Pereyra 1973). Given slope and centre the
rest is linear, so only these two are searched, from a grid of starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import optimize, special

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

__all__ = ["LogisticFit", "LogisticProblem", "fit_logistic", "size_of"]

# Bounds of a logistic's log slope and centre, for standardised scores. Beyond them it is a straight
# line, a step or an exponential, which more digits would not change.
_LOW = np.array([math.log(0.01), -1000.0])
_HIGH = np.array([math.log(100.0), 1000.0])

_START_SLOPES = (0.3, 1.0, 2.0, 4.0, 10.0, 30.0)
_START_QUANTILES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


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
    problem = LogisticProblem.of(scores, labels, parameters)
    return None if problem is None else problem.fit(*problem.solve(problem.starts()))


class LogisticProblem:
    """A least squares problem of standardised scores ``u`` and labels ``v``, (N,) each.

    The curve is ``base + rise * logistic(slope * (u - centre))``, plus ``tilt * u`` with five
    parameters. It is linear in all but log slope and centre, the two of ``at``, which are searched.
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
    def of(cls, scores: ArrayLike, labels: ArrayLike, parameters: int) -> LogisticProblem | None:
        """Return the problem of (N,) scores and labels; None where there is no fit."""
        x = np.asarray(scores, dtype=np.float64)
        y = np.asarray(labels, dtype=np.float64)
        if len(x) <= parameters or np.ptp(x) == 0 or np.ptp(y) == 0:
            return None
        u, x_mean, x_scale = _standardised(x)
        v, y_mean, y_scale = _standardised(y)
        return cls(u, v, (x_mean, x_scale, y_mean, y_scale), parameters)

    def resample(self, rows: np.ndarray) -> LogisticProblem | None:
        """Return the problem of some of the rows, on the same standard scale."""
        u, v = self.u[rows], self.v[rows]
        if np.ptp(u) == 0 or np.ptp(v) == 0:
            return None
        return LogisticProblem(u, v, self.scale, self.parameters)

    def starts(self) -> list[np.ndarray]:
        """Return the three best of a grid of log slopes and centres."""
        centres = np.quantile(self.u, _START_QUANTILES)
        grid = [np.array([math.log(s), c]) for s in _START_SLOPES for c in centres]
        return sorted(grid, key=lambda at: float(np.sum(self.residuals(at) ** 2)))[:3]

    def _without_line(self, values: np.ndarray) -> np.ndarray:
        """Return the residual of values on a constant (and, with five parameters, on u)."""
        values = values - values.mean()
        if self.parameters == 5:
            values = values - self._line * (self._line @ values)
        return np.asarray(values)

    def _logistic(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the logistic column, its derivative by its argument, and a log factor.

        The column is measured from the side on which it is small, and scaled to a maximum of 1, so
        that a curve whose centre is far outside of the data neither underflows nor equals a constant.
        """
        if self._last is not None and np.array_equal(self._last[0], at):
            return self._last[1]
        side = 1.0 if at[1] > 0 else -1.0
        steps = side * math.exp(at[0]) * (self.u - at[1])
        highest = float(steps.max())
        top = float(special.log_expit(highest))
        if highest > -30:
            logistic = special.expit(steps) / math.exp(top)
        else:  # expit would lose digits and underflow
            logistic = np.exp(special.log_expit(steps) - top)
        result = logistic, side * logistic * special.expit(-steps), top
        self._last = (at.copy(), result)  # MINPACK asks for values and derivatives in turn
        return result

    def _rise(self, logistic: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the logistic column's residual on the linear terms, and its coefficient."""
        alone = self._without_line(logistic)
        squares = float(alone @ alone)
        if squares <= 1e-26 * float(logistic @ logistic):  # nothing but rounding errors
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
            at, _, info, *_ = optimize.leastsq(  # MINPACK's, without least_squares' overhead
                self.residuals,
                start,
                Dfun=self.jacobian,
                full_output=True,
                ftol=tolerance,
                xtol=tolerance,
                gtol=tolerance,
                maxfev=steps,
            )
            reached = float(info["fvec"] @ info["fvec"])
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


def size_of(values: np.ndarray) -> float:
    """Return the power of two of the largest of (N,) values: in units of it no square overflows."""
    return float(2.0 ** (np.frexp(np.abs(values).max())[1] - 1))


def _standardised(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return (N,) values of mean 0 and deviation 1, and their mean and deviation: of any size."""
    unit = size_of(values)
    values = values / unit
    mean, deviation = float(values.mean()), float(values.std())
    return (values - mean) / deviation, unit * mean, unit * deviation
