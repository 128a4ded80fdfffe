"""The section that compares the run with another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from iqa_core.evaluation.correlations import srcc
from iqa_core.pages.drift import largest_gap
from iqa_core.pages.html import render, table
from iqa_core.pages.run.cards import disputes
from iqa_core.pages.svg import BINS, axis_of, histogram
from iqa_core.pages.text import number, share, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.pages.run.data import Other, Run
    from iqa_core.pages.run.layout import Layout
    from iqa_core.pages.run.thumbnails import Card

__all__ = ["comparison"]

_MAX_STATUSES = 30


def comparison(run: Run, other: Other | None, layout: Layout, cards: Mapping[int, Card]) -> Markup:
    """Return the section; empty without another run."""
    if other is None:
        return Markup("")
    here, there = run.score[np.isfinite(run.score)], other.dispute.all_scores
    of_sample = ", of the sample" if run.sampled else ""
    statuses = list(other.dispute.statuses.items())[:_MAX_STATUSES]
    histograms = []
    if len(here) and len(there):
        axis = axis_of(np.concatenate([[here.min(), here.max()], [there.min(), there.max()]]))
        pairs = (("here", here), ("there", there))
        histograms = [histogram(values, axis, name, BINS, 99) for name, values in pairs]
    return render(
        "comparison.html",
        facts=table("Drift", ("Fact", "Value"), _facts(run, other, here, there), "facts"),
        statuses=table(
            f"Rows of another status{of_sample}",
            ("Here", "There", "Rows"),
            [(_code(a), _code(b), f"{count:,}") for (a, b), count in statuses],
            "numbers",
        )
        if statuses
        else "",
        histograms=histograms,
        disputes=disputes(run, "drift", layout, cards),
    )


def _facts(run: Run, other: Other, here: np.ndarray, there: np.ndarray) -> list[tuple[str, str]]:
    dispute, config = other.dispute, other.config
    of_sample = ", of the sample" if run.sampled else ""
    both = int(np.isfinite(dispute.here).sum())
    moved = int((np.abs(dispute.difference) > 0.1).sum())
    pairs = value_of(config.get("prompts") or config.get("pairs"))
    facts = [
        ("Compared with", other.name),
        ("Its model and pairs", f"{value_of(config.get('model'))}, {pairs}"),
        *_row_counts(run, other),
        (f"Scored in both{of_sample}", f"{both:,}"),
        ("Rank correlation (SRCC) of the two", number(srcc(dispute.here, dispute.there))),
        ("Moved by more than a tenth of the ranks", share(moved, both)),
    ]
    if len(here) and len(there):
        facts += [
            ("Mean score here, there", f"{number(here.mean())}, {number(there.mean())}"),
            ("Median here, there", f"{number(np.median(here))}, {number(np.median(there))}"),
            ("Largest gap of the two cumulative distributions", number(largest_gap(here, there))),
        ]
    return facts


def _row_counts(run: Run, other: Other) -> list[tuple[str, str]]:
    dispute = other.dispute
    joined = f"by their {dispute.joined_by}"
    if run.sampled and dispute.joined_by == "uri":
        return [
            (f"Rows of the sample in both, {joined}", f"{dispute.rows:,}"),
            ("Rows of the sample only here", f"{dispute.only_here:,}"),
        ]
    return [
        (f"Rows in both, {joined}", f"{dispute.rows:,}"),
        ("Rows only here, only there", f"{dispute.only_here:,}, {dispute.only_there:,}"),
    ]


def _code(status: str) -> Markup:
    return render("code.html", value=status)
