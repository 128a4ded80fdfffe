"""A monotone map from scores to opinion scores (MOS), fitted to a few hundred labels, with an interval.

The curve is VQEG's logistic (:mod:`iqa_core.evaluation.logistic`) or an isotonic regression (Barlow et
al., Statistical Inference under Order Restrictions, 1972), whichever has the smaller error in
cross-validation. The interval is of conformal kind: its half-width is a quantile of the errors on held-out
folds, with the correction for finite samples of Lei et al., Distribution-Free Predictive Inference for
Regression, JASA 113(523), 2018, https://arxiv.org/abs/1604.04173. What differs: the errors are those of
all folds together, as in Barber et al., Predictive inference with the jackknife+, Annals of Statistics
49(1), 2021, https://arxiv.org/abs/1905.02928, but one curve and one width are kept instead of a curve for
each fold, so that a file of a few numbers is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from scipy import optimize

from iqa_core.errors import InputError
from iqa_core.evaluation.correlations import srcc
from iqa_core.evaluation.logistic import LogisticFit, fit_logistic

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

__all__ = ["FEWEST_LABELS", "Calibration", "Curve", "IsotonicFit", "calibrate", "fit_isotonic"]

#: Labels below which neither the curve nor a quantile of its errors means anything.
FEWEST_LABELS = 30
_FOLDS = 10

Kind = Literal["logistic", "isotonic"]


class Curve(Protocol):
    """A fitted curve."""

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """Return the labels that it predicts for (N,) scores."""


@dataclass(frozen=True)
class IsotonicFit:
    """A monotone curve through knots, straight between them and constant beyond.

    Attributes:
        x: (K,) scores, ascending.
        y: (K,) labels.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """Return the curve at (N,) scores."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.x, self.y)


def fit_isotonic(scores: ArrayLike, labels: ArrayLike, *, increasing: bool = True) -> IsotonicFit:
    """Fit a monotone curve by least squares.

    >>> fit_isotonic([1, 2, 3, 4], [1, 3, 2, 5])
    IsotonicFit(x=(1.0, 2.0, 3.0, 4.0), y=(1.0, 2.5, 2.5, 5.0))

    Args:
        scores: (N,) finite scores; equal ones share a knot.
        labels: (N,) finite labels.
        increasing: Whether a higher score has a higher label.
    """
    x, group = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    weights = np.bincount(group).astype(np.float64)
    means = np.bincount(group, np.asarray(labels, dtype=np.float64)) / weights
    y = optimize.isotonic_regression(means, weights=weights, increasing=increasing).x
    # Of a run of equal values, the inner knots change nothing.
    inner = np.zeros(len(x), dtype=bool)
    inner[1:-1] = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])
    return IsotonicFit(tuple(x[~inner].tolist()), tuple(y[~inner].tolist()))


@dataclass(frozen=True)
class Calibration:
    """A curve from scores to labels, and how far labels are from it.

    Attributes:
        curve: The curve.
        kind: Its kind.
        half_width: Of the interval, on the labels' scale.
        coverage: Share of new images whose label the interval is to hold.
        rmse: Kind -> error in cross-validation, on the labels' scale; NaN where no curve was found.
        srcc: Rank correlation of scores and labels; positive also if a low label is a good image.
        labels: Number of labels.
        label_range: Lowest and highest label.
        increasing: Whether a higher score has a higher label.
    """

    curve: LogisticFit | IsotonicFit
    kind: Kind
    half_width: float
    coverage: float
    rmse: dict[str, float]
    srcc: float
    labels: int
    label_range: tuple[float, float]
    increasing: bool

    def predict(self, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return predicted labels and the ends of their intervals, (N,) each; NaN where a score is."""
        values = np.asarray(scores, dtype=np.float64)
        found = np.where(np.isnan(values), np.nan, self.curve(values))
        return found, found - self.half_width, found + self.half_width


def calibrate(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    kind: Kind | None = None,
    coverage: float = 0.9,
    lower_is_better: bool = False,
    seed: int = 0,
) -> Calibration:
    """Fit a curve from scores to labels.

    Args:
        scores: (N,) finite scores.
        labels: (N,) finite labels.
        kind: The curve; None takes the one with the smaller error in cross-validation.
        coverage: Share of new images whose label the interval is to hold, in (0, 1).
        lower_is_better: Whether a low label is a good image, as DMOS has it.
        seed: Of the folds.

    Raises:
        InputError: If there are too few labels for that, one side is constant, or labels fall with scores.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    agreement = _checked(x, y, lower_is_better)
    rank = math.ceil(coverage * (len(y) + 1))
    if rank > len(y):
        needed = math.ceil(coverage / (1 - coverage))
        raise InputError(
            argument="coverage",
            value=coverage,
            limit=f"at most {_highest_coverage(len(y)):.3f} with {len(y)} labels",
            fix=f"give {needed} labels, or a lower {{coverage}}",
        )
    increasing = not lower_is_better
    folds = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    kinds: tuple[Kind, ...] = ("logistic", "isotonic") if kind is None else (kind,)
    errors = {name: _held_out_errors(_FITS[name], x, y, folds, increasing) for name in kinds}
    rmse: dict[str, float] = {
        name: float(np.sqrt(np.mean(found**2))) for name, found in errors.items()
    }
    best = min(kinds, key=lambda name: (math.isnan(rmse[name]), rmse[name]))
    curve = _FITS[best](x, y, increasing)
    if curve is None or math.isnan(rmse[best]):
        raise InputError(
            argument="kind",
            value=best,
            limit="a curve that these labels have in every fold",
            fix="give isotonic, or more labels",
        )
    return Calibration(
        curve=curve,
        kind=best,
        half_width=float(np.sort(np.abs(errors[best]))[rank - 1]),
        coverage=coverage,
        rmse={str(name): error for name, error in rmse.items()},
        srcc=agreement,
        labels=len(y),
        label_range=(float(y.min()), float(y.max())),
        increasing=increasing,
    )


def _highest_coverage(labels: int) -> float:
    """Return the highest coverage that a number of labels can show, rounded down to three digits."""
    return 1000 * labels // (labels + 1) / 1000


def _checked(x: np.ndarray, y: np.ndarray, lower_is_better: bool) -> float:
    """Return the rank correlation, positive where both sides agree."""
    if len(y) < FEWEST_LABELS:
        raise InputError(
            f"{len(y)} images have a score and a label, but a calibration needs at least "
            f"{FEWEST_LABELS}: label more images, best a few hundred"
        )
    for name, values in (("scores", x), ("labels", y)):
        if np.ptp(values) == 0:
            raise InputError(
                f"the {name} of all {len(values)} images are {values[0]:g}: a calibration needs images of "
                "different quality"
            )
    agreement = srcc(x, -y if lower_is_better else y)
    if agreement <= 0:
        fix = "leave out --lower-is-better" if lower_is_better else "give --lower-is-better"
        raise InputError(
            f"labels fall where scores rise (SRCC {agreement:.2f} on {len(y)} images): {fix} if that "
            "is how the labels are meant; else they are not of these images"
        )
    return agreement


def _fit_logistic(x: np.ndarray, y: np.ndarray, increasing: bool) -> LogisticFit | None:
    """Fit the logistic curve; None where there is none, or it runs the other way."""
    fit = fit_logistic(x, y)
    if fit is None:
        return None
    first, second, _, width = fit.parameters
    rises = (first - second) * width > 0
    return fit if rises == increasing else None


def _fit_isotonic(x: np.ndarray, y: np.ndarray, increasing: bool) -> IsotonicFit:
    return fit_isotonic(x, y, increasing=increasing)


_FITS: dict[Kind, Callable[[np.ndarray, np.ndarray, bool], LogisticFit | IsotonicFit | None]] = {
    "logistic": _fit_logistic,
    "isotonic": _fit_isotonic,
}


def _held_out_errors(
    fit: Callable[[np.ndarray, np.ndarray, bool], LogisticFit | IsotonicFit | None],
    x: np.ndarray,
    y: np.ndarray,
    folds: np.ndarray,
    increasing: bool,
) -> np.ndarray:
    """Return (N,) errors of curves that were fitted to the other folds; NaN where there was no curve."""
    errors = np.full(len(y), np.nan)
    for fold in range(_FOLDS):
        held_out = folds == fold
        curve = fit(x[~held_out], y[~held_out], increasing)
        if curve is not None:
            errors[held_out] = y[held_out] - curve(x[held_out])
    return errors
