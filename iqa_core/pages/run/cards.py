"""Sections of images: best and worst, the contact sheet, and disputed images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from iqa_core.pages.html import render
from iqa_core.pages.text import name_of, number, plural, short_name, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from iqa_core.pages.run.data import Run
    from iqa_core.pages.run.layout import Layout
    from iqa_core.pages.run.thumbnails import Card

__all__ = ["disputes", "extremes", "sheet"]


def extremes(run: Run, layout: Layout, cards: Mapping[int, Card]) -> Markup:
    """Return the best and the worst images."""
    if not layout.best:
        return Markup("")
    groups = [
        (
            f"{title} {len(rows)}",
            "",
            [_card(run, i, cards[i], _extreme_pair(run, i, choose)) for i in rows],
        )
        for title, rows, choose in (("Best", layout.best, max), ("Worst", layout.worst, min))
    ]
    return render("cards.html", note="", groups=groups)


def disputes(run: Run, section: str, layout: Layout, cards: Mapping[int, Card]) -> Markup:
    """Return the disputed images of one section, ``pairs`` or ``drift``."""
    groups = [
        (
            dispute.title,
            "",
            [_card(run, i, cards[i], reason) for i, reason in dispute.reasons.items()],
        )
        for dispute in layout.disputes
        if dispute.section == section
    ]
    return render("cards.html", note="", groups=groups) if groups else Markup("")


def sheet(run: Run, layout: Layout, cards: Mapping[int, Card]) -> Markup:
    """Return the contact sheet by decile."""
    if not layout.strips:
        return Markup("")
    total, count = int(np.isfinite(run.score).sum()), len(layout.strips)
    groups = [
        (
            _strip_title(place, count),
            f"{number(strip.low)} to {number(strip.high)}, {plural(strip.count, 'image')}",
            [_card(run, i, cards[i]) for i in strip.rows],
        )
        for place, strip in enumerate(layout.strips, start=1)
    ]
    note = (
        f"{plural(total, 'scored image')}, in {count} equal parts by rank; a few examples of each, "
        "evenly spaced. Point at an image for its score by pair."
    )
    return render("cards.html", note=note, groups=groups)


def _strip_title(place: int, count: int) -> str:
    suffix = {1: " (worst)", count: " (best)"}.get(place, "") if count > 1 else ""
    return f"{place}{suffix}"


def _scores_by_pair(run: Run, index: int) -> dict[str, float]:
    scores = {name: float(values[index]) for name, values in run.pairs.items()}
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def _extreme_pair(run: Run, index: int, choose: Callable[..., str]) -> str:
    """Return which pair scores an image highest or lowest; empty with one pair."""
    scores = _scores_by_pair(run, index)
    if len(scores) < 2:
        return ""
    name = choose(scores, key=lambda name: scores[name])
    word = "highest" if choose is max else "lowest"
    return f"{word}: {shorten(name, 40)} {number(scores[name])}"


def _card(run: Run, index: int, card: Card, reason: str = "") -> dict[str, Any]:
    """Return the values for the template of an image."""
    scores = _scores_by_pair(run, index)
    lines = [shorten(name_of(card.row))]
    lines += [f"{shorten(name, 80)}: {number(value)}" for name, value in scores.items()]
    return {
        "index": index,
        "name": short_name(card.row),
        "score": number(float(run.score[index])),
        # each pair has its own line in the tooltip
        "tooltip": Markup("&#10;").join(lines),
        "reason": reason,
        "thumbnail": card.thumbnail,
    }
