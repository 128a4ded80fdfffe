"""Chooses the rows that a page shows: best and worst, a contact sheet, disputed images, the table."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.pages.drift import compare_pairs
from iqa_core.pages.text import number

if TYPE_CHECKING:
    from iqa_core.pages.run.data import Other, Run

__all__ = ["Dispute", "Layout", "Strip", "choose_images", "choose_rows"]

_FAILURES = 100  # rows without a score in the table, at most a fifth


@dataclass(frozen=True, eq=False)
class Strip:
    """A tenth of the scored rows, by rank: its range, its size and the rows shown."""

    low: float
    high: float
    count: int
    rows: list[int]


@dataclass(frozen=True, eq=False)
class Dispute:
    """Images that the pairs, or two runs, disagree about most: section, title, a line for each row."""

    section: str
    title: str
    reasons: dict[int, str]


@dataclass(frozen=True, eq=False)
class Layout:
    """The rows of the page's sections.

    Attributes:
        worst: Rows with the lowest scores, the lowest first.
        best: Rows with the highest scores, the highest first.
        strips: The contact sheet.
        disputes: Images that the runs, or the pairs, disagree about.
        spread: (K,) range of the ranks over the pairs, 0 to 1; None with one pair.
        table: Rows of the table, by score, those without one last.
    """

    worst: list[int]
    best: list[int]
    strips: list[Strip]
    disputes: list[Dispute] = field(default_factory=list)
    spread: np.ndarray | None = None
    table: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[int]:
        """All rows whose image a section shows, each once, ascending."""
        strips = (i for strip in self.strips for i in strip.rows)
        disputes = (i for dispute in self.disputes for i in dispute.reasons)
        return sorted({*self.worst, *self.best, *strips, *disputes})


def choose_images(score: np.ndarray, thumbnails: int) -> Layout:
    """Choose the best, the worst and the contact sheet.

    Args:
        score: (K,), NaN where there is none.
        thumbnails: Maximum number of images in the contact sheet; a fifth of it, at most 12, are the best
            and the worst each.
    """
    order = np.argsort(score, kind="stable")  # NaN last
    order = order[: int(np.isfinite(score).sum())]
    edge = min(12, math.ceil(thumbnails / 5), math.ceil(len(order) / 2))
    per_strip = thumbnails // 10 or min(thumbnails, 1)
    strips = [
        Strip(float(score[part[0]]), float(score[part[-1]]), len(part), _evenly(part, per_strip))
        for part in np.array_split(order, min(10, max(1, len(order))))
        if len(part)
    ]
    if thumbnails < 10:
        strips = strips[:: max(1, math.ceil(len(strips) / max(1, thumbnails)))]
    return Layout(
        worst=[int(i) for i in order[:edge]],
        best=[int(i) for i in order[::-1][:edge]],
        strips=strips if thumbnails else [],
    )


def choose_rows(run: Run, other: Other | None, thumbnails: int, rows: int) -> Layout:
    """Choose the rows of all sections.

    Args:
        run: The run.
        other: The run to compare with.
        thumbnails: See :func:`choose_images`.
        rows: Maximum number of rows in the table: failures of each kind (up to a fifth), what the
            sections show, rows evenly spaced by rank.
    """
    layout = choose_images(run.score, thumbnails)
    spread = None
    if other is not None:
        layout.disputes.extend(_disputes_of_runs(other, thumbnails))
    if len(run.pairs) > 1:
        pairs = compare_pairs(run.pairs)
        spread = pairs.spread
        names = list(run.pairs)
        reasons = {
            i: f"{names[pairs.highest[i]]}: above {pairs.ranks[pairs.highest[i], i]:.0%} of the "
            f"images, {names[pairs.lowest[i]]}: {pairs.ranks[pairs.lowest[i], i]:.0%}"
            for i in _largest(pairs.spread, _edge(thumbnails))
        }
        layout.disputes.append(Dispute("pairs", "Most disputed between the pairs", reasons))
    layout = replace(
        layout,
        disputes=[dispute for dispute in layout.disputes if dispute.reasons],
        spread=spread,
    )
    return replace(layout, table=_table_rows(run, layout, rows))


def _edge(thumbnails: int) -> int:
    return min(12, math.ceil(thumbnails / 5))


def _disputes_of_runs(other: Other, thumbnails: int) -> list[Dispute]:
    dispute = other.dispute

    def reason(i: int) -> str:
        return (
            f"above {dispute.here[i]:.0%} of the images here, {dispute.there[i]:.0%} there "
            f"({number(float(dispute.score[i]))})"
        )

    most = _edge(thumbnails)
    return [
        Dispute("drift", title, {i: reason(i) for i in rows})
        for title, rows in (
            ("Better here than there", _largest(dispute.difference, most)),
            ("Worse here than there", _largest(-dispute.difference, most)),
        )
    ]


def _table_rows(run: Run, layout: Layout, rows: int) -> list[int]:
    if rows >= len(run.ok):
        chosen = set(range(len(run.ok)))
    else:
        chosen = set(_failed_rows(run, min(_FAILURES, rows // 5)))
        ends = [row for pair in zip(layout.worst, layout.best, strict=True) for row in pair]
        disputes = [row for dispute in layout.disputes for row in dispute.reasons]
        strips = [row for strip in layout.strips for row in strip.rows]
        shown = list(dict.fromkeys([*ends, *disputes, *strips]))
        chosen |= set(shown[: rows - len(chosen)])
        order = np.argsort(run.score, kind="stable")[: int(np.isfinite(run.score).sum())]
        order = order[~np.isin(order, list(chosen))]
        chosen |= set(_evenly(order, rows - len(chosen)))
    score = np.where(np.isfinite(run.score), run.score, np.inf)
    return sorted(chosen, key=lambda i: (float(score[i]), i))


def _failed_rows(run: Run, most: int) -> list[int]:
    """Return failed rows in turn from each kind, so that a frequent kind hides no rare one."""
    failed = np.flatnonzero(~run.ok)
    kinds = run.status.take(failed).to_pylist()
    seen: Counter[str] = Counter()
    turns = []
    for row, kind in zip(failed, kinds, strict=True):
        if seen[kind] < most:
            turns.append((seen[kind], int(row)))
            seen[kind] += 1
    return [row for _, row in sorted(turns)[:most]]


def _largest(values: np.ndarray, count: int) -> list[int]:
    """Return the places of up to ``count`` values above 0, the largest first."""
    values = np.where(np.isfinite(values), values, 0.0)
    count = min(count, int((values > 0).sum()))
    if not count:
        return []
    places = np.argpartition(-values, count - 1)[:count]
    return [int(i) for i in places[np.lexsort((places, -values[places]))]]


def _evenly(rows: np.ndarray, count: int) -> list[int]:
    """Return up to ``count`` of ``rows``, evenly spaced from the first to the last."""
    if not count:
        return []
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [int(rows[i]) for i in places]
