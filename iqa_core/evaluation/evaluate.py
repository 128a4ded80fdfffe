"""Agreement of scores with human opinion, as the field reports it: values, intervals, differences.

Metrics are in ``correlations`` and ``logistic``, intervals in ``bootstrap``, tests in ``significance``;
each names its sources. P-values are corrected by Holm's method over the pairs of score sets, for each
metric. With clusters they are the bootstrap's: the tests take images for independent, and find differences
where there are none.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.evaluation.bootstrap import (
    CURVE_POINTS,
    Resampler,
    bootstrap_p_value,
    draw_resamples,
    expanded_tails,
    percentile_interval,
)
from iqa_core.evaluation.correlations import plcc, srcc
from iqa_core.evaluation.results import (
    COMPARED_METRICS,
    METRICS,
    Comparison,
    Estimate,
    Evaluation,
)
from iqa_core.evaluation.significance import holm, meng_test, williams_test

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

__all__ = ["evaluate"]

#: Metric -> the test's name, the test, and the correlation of two score sets that it needs.
_TESTS: dict[str, tuple[str, Callable[..., tuple[float, float]], Callable[..., float]]] = {
    "srcc": ("meng", functools.partial(meng_test, ranks=True), srcc),
    "plcc": ("williams", williams_test, plcc),
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
    cluster = None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    for name, values in sets.items():
        if values.shape != y.shape or y.ndim != 1:
            raise ValueError(
                f"scores of {name} {values.shape} and labels {y.shape} must both be (N,), one value "
                "for each image"
            )
    resamplers = {name: Resampler(values, y, lower_is_better) for name, values in sets.items()}
    drawn = draw_resamples(len(y), cluster, resamples, seed)
    each = [[resampler.resample(rows) for resampler in resamplers.values()] for rows in drawn]
    boot = np.array([[m for m, _ in row] for row in each]).reshape(-1, len(sets), len(METRICS))
    curves = np.array([[c for _, c in row] for row in each]).reshape(-1, len(sets), CURVE_POINTS)
    drawn_clusters = None if cluster is None else len(np.unique(cluster))
    tails = expanded_tails(confidence, drawn_clusters)
    evaluation = Evaluation(
        count=len(y),
        clusters=drawn_clusters,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        lower_is_better=lower_is_better,
        metrics={
            name: {
                key: Estimate(value, *percentile_interval(boot[:, i, k], tails))
                for k, (key, value) in enumerate(resampler.metrics.items())
            }
            for i, (name, resampler) in enumerate(resamplers.items())
        },
        fits={name: resampler.fits for name, resampler in resamplers.items()},
        curves={
            name: resampler.curve(
                [percentile_interval(curves[:, i, g], tails) for g in range(CURVE_POINTS)]
            )
            for i, (name, resampler) in enumerate(resamplers.items())
        },
        comparisons=_compare(resamplers, boot, tails, drawn_clusters),
    )
    if groups is not None:
        group_of = np.asarray(groups)
        evaluation.groups.update(
            {
                str(value): evaluate(
                    {name: values[rows] for name, values in sets.items()},
                    y[rows],
                    clusters=None if cluster is None else cluster[rows],
                    lower_is_better=lower_is_better,
                    resamples=resamples,
                    confidence=confidence,
                    seed=seed,
                )
                for value in np.unique(group_of)
                for rows in [np.flatnonzero(group_of == value)]
            }
        )
    return evaluation


def _compare(
    resamplers: Mapping[str, Resampler],
    boot: np.ndarray,
    tails: tuple[float, float],
    clusters: int | None,
) -> list[Comparison]:
    comparisons = []
    for metric in COMPARED_METRICS:
        k = list(METRICS).index(metric)
        # The tests assume independent images, which those of one cluster are not.
        tested = _TESTS if clusters is None else {}
        name, test, correlate = tested.get(metric, ("", None, None))
        rows: list[tuple[str, str, Estimate, float, float]] = []
        for (i, (a, first)), (j, (b, second)) in itertools.combinations(
            enumerate(resamplers.items()), 2
        ):
            differences = boot[:, i, k] - boot[:, j, k]
            difference = Estimate(
                first.metrics[metric] - second.metrics[metric],
                *percentile_interval(differences, tails),
            )
            p_test = math.nan
            if test is not None and correlate is not None:
                between = correlate(first.x, second.x)
                pair = (first.metrics[metric], second.metrics[metric])
                p_test = test(*pair, between, len(first.y))[1]
            rows.append((a, b, difference, bootstrap_p_value(differences, clusters), p_test))
        corrected = holm([p_test if test is not None else p for *_, p, p_test in rows])
        comparisons += [
            Comparison(a, b, metric, difference, p, name, p_test, p_holm)
            for (a, b, difference, p, p_test), p_holm in zip(rows, corrected, strict=True)
        ]
    return comparisons
