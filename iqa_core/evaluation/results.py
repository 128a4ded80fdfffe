"""What an evaluation holds: metrics with intervals, comparisons, curves, groups; and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from iqa_core.evaluation.logistic import LogisticFit

__all__ = ["COMPARED_METRICS", "METRICS", "Comparison", "Estimate", "Evaluation"]

#: Metrics by name, with their titles. RMSE is on the labels' scale.
METRICS = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic4": "PLCC, 4-parameter logistic",
    "plcc_logistic5": "PLCC, 5-parameter logistic",
    "rmse_logistic4": "RMSE, 4-parameter logistic",
    "rmse_logistic5": "RMSE, 5-parameter logistic",
}
#: Those in which score sets are compared.
COMPARED_METRICS = ("srcc", "krcc", "plcc", "plcc_logistic4", "plcc_logistic5")


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
        first: Name of the first score set.
        second: Name of the second.
        metric: Key of :data:`METRICS`.
        difference: ``first`` minus ``second``, with its paired bootstrap interval.
        p_bootstrap: Two-sided p-value of the paired bootstrap; NaN without one.
        test: ``meng`` for SRCC, ``williams`` for PLCC; empty for other metrics, and with clusters.
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
    """The evaluation of one or more score sets on the same images.

    Attributes:
        count: Images used.
        clusters: Clusters that the bootstrap drew, or None if it drew images.
        resamples: Bootstrap resamples.
        confidence: Share of the resamples that an interval holds.
        seed: Seed of the bootstrap.
        lower_is_better: Whether a low label was taken for a good image; then correlations are inverted.
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
    lower_is_better: bool
    metrics: dict[str, dict[str, Estimate]]
    fits: dict[str, tuple[LogisticFit | None, LogisticFit | None]]
    curves: dict[str, np.ndarray]
    comparisons: list[Comparison]
    groups: dict[str, Evaluation] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the curves, as JSON holds it: NaN is null."""
        document: dict[str, Any] = {
            "images": self.count,
            "lower_is_better": self.lower_is_better,
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
                _json({**vars(comparison), "difference": _json(vars(comparison.difference))})
                for comparison in self.comparisons
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
