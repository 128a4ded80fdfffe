"""An evaluation as lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from iqa_core.evaluation.results import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.evaluation.results import Comparison, Estimate, Evaluation

__all__ = ["describe"]

_FEW_CLUSTERS = 20
_TESTS = {"meng": "Meng-Rosenthal-Rubin", "williams": "Williams", "": "bootstrap"}


def describe(evaluation: Evaluation) -> list[str]:
    """Return an evaluation as lines of text: metrics, differences, groups, warnings."""
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
        lines += _align([_describe_comparison(comparison) for comparison in evaluation.comparisons])
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
    if evaluation.clusters is not None and evaluation.clusters < _FEW_CLUSTERS:
        lines += [
            "",
            f"{evaluation.clusters} clusters are few: intervals and p-values are rough (where there was no "
            "difference, p was below 0.05 in 3 % of studies of 8 references).",
        ]
    for name, metrics in evaluation.metrics.items():
        if math.isnan(metrics["srcc"].value):
            lines += ["", f"{name} has no correlation: all labels, or all its scores, are equal."]
        if metrics["srcc"].value < 0:
            lines += ["", _describe_direction(name, evaluation.lower_is_better)]
    return lines


def _describe_direction(name: str, lower_is_better: bool) -> str:
    """Return why a rank correlation is negative, and what to do."""
    reason = f"{name} falls as the labels rise. If a low label is a good image (DMOS), give"
    if lower_is_better:
        reason = f"{name} rises with the labels. If a high label is a good image (MOS), leave out"
    return f"{reason} --lower-is-better. The logistic curves bend either way, so their PLCC is positive."


def _describe_bootstrap(evaluation: Evaluation) -> str:
    if not evaluation.resamples:
        return "no intervals"
    drawn = "images" if evaluation.clusters is None else f"{evaluation.clusters:,} clusters"
    return (
        f"{100 * evaluation.confidence:g}% bootstrap intervals from {evaluation.resamples:,} resamples of "
        f"{drawn}"
    )


def _describe_comparison(comparison: Comparison) -> list[str]:
    difference = f"{comparison.difference.value:+.4f}"
    if math.isfinite(comparison.difference.low):
        difference += f" [{comparison.difference.low:+.4f}, {comparison.difference.high:+.4f}]"
    p = "undefined" if math.isnan(comparison.p_holm) else f"{comparison.p_holm:.2g}"
    return [
        METRICS[comparison.metric],
        f"{comparison.first} - {comparison.second}",
        difference,
        f"p {p} ({_TESTS[comparison.test]})",
    ]


def _cell(key: str, estimate: Estimate) -> str:
    digits = ".4f"
    if "rmse" in key and estimate.value >= 1:  # on the labels' scale
        digits = ".3f"
    if "rmse" in key and estimate.value and not 1e-3 <= estimate.value < 1e6:
        digits = ".4g"
    if math.isnan(estimate.value):
        return "undefined"
    interval = ""
    if math.isfinite(estimate.low):
        interval = f" [{estimate.low:{digits}}, {estimate.high:{digits}}]"
    return f"{estimate.value:{digits}}{interval}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
