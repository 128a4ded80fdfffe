"""A selection as one self-contained HTML page: what went and why, and images on both sides of the limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.pages.html import page, render, table
from iqa_core.pages.run.thumbnails import MAX_FILE_BYTES, make_cards
from iqa_core.pages.text import name_of, number, share, short_name, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iqa_core.pages.run.thumbnails import Card

__all__ = ["selection_page"]


def selection_page(
    title: str,
    command: str,
    rows: int,
    left: Sequence[tuple[str, int, str]],
    kept: int,
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    folder: str | None = None,
    schemes: tuple[str, ...] = DEFAULT_SCHEMES,
    prefixes: tuple[str, ...] = (),
) -> str:
    """Return the page as HTML.

    Args:
        title: Its heading.
        command: The command line, for readers.
        rows: Rows that there were.
        left: Reason, rows and detail of what was left out, in the order of the steps.
        kept: Rows that were kept.
        examples: Rows of an output by heading; ``score`` is shown, and each pair's of ``scores``.
        folder: The manifest's, which relative URIs and inline images are of; None if unknown.
        schemes: See :class:`iqa_core.fetch.fetcher.Fetcher`.
        prefixes: Likewise.
    """
    numbered = dict(enumerate(row for group in examples.values() for row in group))
    fetcher = Fetcher(
        folder or ".",
        timeout=10.0,
        retries=1,
        max_bytes=MAX_FILE_BYTES,
        schemes=schemes,
        prefixes=prefixes,
    )
    cards = make_cards({i: dict(row) for i, row in numbered.items()}, numbered, fetcher, folder)
    groups = []
    start = 0
    for heading, group in examples.items():
        figures = [_figure(start + i, cards[start + i]) for i in range(len(group))]
        start += len(group)
        if figures:
            groups.append((heading, "", figures))
    body = [
        (render("reason.html", reason=reason, detail=detail), share(count, rows))
        for reason, count, detail in left
    ]
    body.append((render("strong.html", value="Selected"), share(kept, rows)))
    counts = table(f"What became of {rows:,} rows", ("Left out by", "Rows"), body)
    if groups:
        note = "Nearest to the limit by rank; a condition on other columns may lie elsewhere."
        images = render("cards.html", note=note, groups=groups)
    else:
        images = render("paragraph.html", text="No row has a rank.", kind="note")
    return page(
        "selection.html", title=title, images=True, command=command, counts=counts, cards=images
    )


def _figure(index: int, card: Card) -> dict[str, Any]:
    """Return the values for the template of an image."""
    row = card.row
    scores = row.get("scores") or {}
    lines = [shorten(name_of(row))]
    lines += [f"{shorten(name, 80)}: {_written(value)}" for name, value in scores.items()]
    rank = row.get("_iqa_rank")
    score = row.get("score")
    reason = "" if rank is None or rank == score else f"rank {_written(rank)}"
    return {
        "index": index,
        "name": short_name(row),
        "score": _written(score),
        "tooltip": Markup("&#10;").join(lines),
        "reason": reason,
        "thumbnail": card.thumbnail,
    }


def _written(value: float | None) -> str:
    return number(math.nan if value is None else float(value))
