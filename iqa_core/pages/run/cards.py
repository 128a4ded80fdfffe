"""Sections of images: best and worst, the contact sheet, and what two runs or the pairs dispute."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.evaluation.correlations import srcc
from iqa_core.pages.run.plots import BINS, axis_of, histogram
from iqa_core.pages.run.text import (
    name_of,
    number,
    plural,
    share,
    short_name,
    table_of,
    text,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from iqa_core.pages.run.data import Other, Run
    from iqa_core.pages.run.pictures import Card, Layout

__all__ = ["disputes", "drift", "extremes", "largest_gap", "sheet"]

_MAX_STATUSES = 30


def extremes(run: Run, layout: Layout, cards: Mapping[int, Card]) -> str:
    """Return the best and the worst images."""
    if not layout.best:
        return ""
    return "".join(
        f'<h3>{name} {len(rows)}</h3><div class="cards">'
        + "".join(_figure(run, index, cards[index], choose) for index in rows)
        + "</div>"
        for name, rows, choose in (("Best", layout.best, max), ("Worst", layout.worst, min))
    )


def disputes(run: Run, section: str, layout: Layout, cards: Mapping[int, Card]) -> str:
    """Return the disputed images of one section, ``pairs`` or ``drift``."""
    return "".join(
        f'<h3>{dispute.title}</h3><div class="cards">'
        + "".join(_figure(run, i, cards[i], told=told) for i, told in dispute.reasons.items())
        + "</div>"
        for dispute in layout.disputes
        if dispute.section == section
    )


def drift(run: Run, other: Other | None, layout: Layout, cards: Mapping[int, Card]) -> str:
    """Return what changed against another run; empty without one."""
    if other is None:
        return ""
    found = other.found
    here, there = run.score[np.isfinite(run.score)], found.all_scores
    both = int(np.isfinite(found.here).sum())
    moved = int((np.abs(found.difference) > 0.1).sum())
    facts = [
        ("Compared with", text(other.name)),
        ("Its model and pairs", text(f"{value_of(other.config.get('model'))}, {_pairs_of(other)}")),
        (f"Rows in both, by their {found.joined_by}", f"{found.rows:,}"),
        ("Rows only here, only there", f"{found.only_here:,}, {found.only_there:,}"),
        ("Scored in both", f"{both:,}"),
        ("Rank correlation (SRCC) of the two", number(srcc(found.here, found.there))),
        ("Moved by more than a tenth of the ranks", share(moved, both)),
    ]
    if len(here) and len(there):
        facts += [
            ("Mean score here, there", f"{number(here.mean())}, {number(there.mean())}"),
            ("Median here, there", f"{number(np.median(here))}, {number(np.median(there))}"),
            (
                "Largest gap of the two cumulative distributions",
                number(largest_gap(here, there)),
            ),
        ]
    parts = [table_of("Drift", ("Fact", "Value"), facts, "facts")]
    if found.statuses:
        rows = [
            (f"<code>{text(a)}</code>", f"<code>{text(b)}</code>", f"{count:,}")
            for (a, b), count in list(found.statuses.items())[:_MAX_STATUSES]
        ]
        parts.append(table_of("Rows of another status", ("Here", "There", "Rows"), rows, "numbers"))
    if len(here) and len(there):
        axis = axis_of(np.concatenate([[here.min(), here.max()], [there.min(), there.max()]]))
        drawn = (("here", here), ("there", there))
        plots = [histogram(values, axis, name, BINS, 99) for name, values in drawn]
        parts.append(f'<div class="multiples">{"".join(plots)}</div>')
    return "".join(parts) + disputes(run, "drift", layout, cards)


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the statistic of Kolmogorov and Smirnov: 0 for the same distributions, at most 1."""
    values = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(one), values, "right") / len(one) for one in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _pairs_of(other: Other) -> str:
    return value_of(other.config.get("prompts") or other.config.get("pairs"))


def sheet(run: Run, layout: Layout, cards: Mapping[int, Card]) -> str:
    """Return the contact sheet by decile."""
    if not layout.strips:
        return ""
    total = int(np.isfinite(run.score).sum())
    parts = f"{plural(total, 'scored image')}, in {len(layout.strips)} equal parts by rank"
    strips = "".join(
        f'<div class="strip"><h3>{_strip_name(place, len(layout.strips))} <small>'
        f"{number(strip.low)} to {number(strip.high)}, {plural(strip.count, 'image')}"
        '</small></h3><div class="cards">'
        + "".join(_figure(run, index, cards[index]) for index in strip.rows)
        + "</div></div>"
        for place, strip in enumerate(layout.strips, start=1)
    )
    return (
        f'<p class="note">{parts}; a few examples of each, evenly spaced. Point at an image for '
        f"its score by pair.</p>{strips}"
    )


def _strip_name(place: int, count: int) -> str:
    suffix = {1: " (worst)", count: " (best)"}.get(place, "") if count > 1 else ""
    return f"{place}{suffix}"


def _figure(
    run: Run,
    index: int,
    card: Card,
    choose: Callable[..., str] | None = None,
    told: str | None = None,
) -> str:
    pairs = {name: float(values[index]) for name, values in run.pairs.items()}
    pairs = {name: value for name, value in pairs.items() if math.isfinite(value)}
    # &#10; so that each pair has its own line in the tooltip
    tooltip = "&#10;".join(
        [text(name_of(card.row)), *(f"{text(n, 80)}: {number(v)}" for n, v in pairs.items())]
    )
    score = number(float(run.score[index]))
    short = html.escape(short_name(card.row))
    reason = "" if told is None else f'<span class="reason">{text(told)}</span>'
    if choose is not None and len(pairs) > 1:
        name = choose(pairs, key=lambda name: pairs[name])
        word = "highest" if choose is max else "lowest"
        reason = f'<span class="reason">{word}: {text(name, 40)} {number(pairs[name])}</span>'
    return (
        f'<figure class="card" title="{tooltip}">{_picture(index, card, short, score)}<figcaption>'
        f'<b>{score}</b> <span class="name">{short}</span>{reason}</figcaption></figure>'
    )


def _picture(index: int, card: Card, short: str, score: str) -> str:
    if card.thumbnail is None:
        return f'<div class="picture none"><span>no preview of {short}</span></div>'
    source, width, height = card.thumbnail
    return (
        f'<div class="picture"><img data-row="{index}" src="{source}" width="{width}" height="{height}" '
        f'alt="{short}, score {score}"></div>'
    )
