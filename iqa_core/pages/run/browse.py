"""The table that can be sorted and filtered in the page: its data, for the page's own script.

The script (``page.js``) builds the table from this JSON, as text, never as markup.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from iqa_core.columns import HEIGHT, IMAGE_ID, WIDTH
from iqa_core.pages.html import render
from iqa_core.pages.run.data import floats, is_number
from iqa_core.pages.text import clean, middle, name_of, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.pages.run.data import Other, Run
    from iqa_core.pages.run.layout import Layout
    from iqa_core.pages.run.thumbnails import Card

__all__ = ["browse"]

_EXACT = 2**53  # numbers of the page are floats, which hold each whole number below
_MOST_CHOICES = 30  # values of a text column that can be chosen from; others are searched

# JSON escapes of the characters that could end the script element.
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def browse(run: Run, other: Other | None, layout: Layout, cards: Mapping[int, Card]) -> Markup:
    """Return the section; empty if no row is to be shown."""
    if not layout.table:
        return Markup("")
    columns = _columns(run, other, layout, cards)
    own = set(layout.rows)  # the page has their pictures already
    document = {
        "columns": [{key: column[key] for key in column if key != "values"} for column in columns],
        "rows": list(zip(*(column["values"] for column in columns), strict=True)),
        "pictures": [_picture(i, cards[i], i in own) for i in layout.table],
        "errors": [clean(cards[i].row["error"] or "")[:200] or None for i in layout.table],
    }
    data = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    if len(layout.table) == run.total:
        caption = f"All {plural(run.total, 'row')} of the run."
    else:
        caption = (
            f"{len(layout.table):,} of the run's {run.total:,} rows: those whose images the other "
            "sections show (best, worst, disputed, contact sheet), failures of each kind, and rows "
            "evenly spaced by rank."
        )
    return render("browse.html", caption=caption, data=Markup(data.translate(_ESCAPES)))  # noqa: S704


def _picture(index: int, card: Card, shown: bool) -> str | None:
    if card.thumbnail is None:
        return None
    return f"#{index}" if shown else str(card.thumbnail.source)


def _columns(
    run: Run, other: Other | None, layout: Layout, cards: Mapping[int, Card]
) -> list[dict[str, Any]]:
    """Return each column's label, kind, filter and values in the table's order.

    Kinds are ``name``, ``text`` and ``number``; filters ``search``, ``choice`` and ``range``.
    """
    at = np.array(layout.table)
    rows = [cards[i].row for i in layout.table]
    columns = [
        _scores("Score", run.score[at], "range"),
        {
            "label": "Image",
            "kind": "name",
            "filter": "search",
            "values": [middle(clean(name_of(row)), 300) for row in rows],
        },
        _text_column("Status", [str(row["status"]) for row in rows]),
    ]
    if layout.spread is not None:
        hint = "range of its ranks over the pairs: 0 all equal, 1 from worst to best"
        columns.append(_scores("Dispute of the pairs", layout.spread[at], None, hint))
    if other is not None:
        dispute = other.dispute
        columns.append(_scores("Score there", dispute.score[at], None, "in the other run"))
        hint = "rank here minus rank there: above 0 where this run ranks it higher"
        columns.append(_scores("Rank change", dispute.difference[at], "range", hint))
    for name, column in run.kept.items():
        label = middle(clean(name), 40)
        held = column.take(pa.array(at))
        if is_number(column.type) and not _has_long_integers(held):
            columns.append(_numbers(label, floats(held), "range", "kept column"))
        else:
            columns.append(_text_column(label, pc.cast(held, pa.string()).to_pylist()))
    columns += [_scores(name, values[at], None, "pair") for name, values in run.pairs.items()]
    if any(row.get(IMAGE_ID) is not None for row in rows):
        ids = [None if row.get(IMAGE_ID) is None else str(row[IMAGE_ID]) for row in rows]
        columns.append(_text_column("image_id", ids, choose=False))
    for key in (WIDTH, HEIGHT):
        sides = np.array([row.get(key) or np.nan for row in rows], float)
        if np.isfinite(sides).any():
            columns.append(_numbers(key.capitalize(), sides, None))
    return columns


def _scores(
    label: str, values: np.ndarray, filter_: str | None, hint: str | None = None
) -> dict[str, Any]:
    numbers = [round(float(v), 5) if math.isfinite(v) else None for v in values]
    return {
        "label": label,
        "kind": "number",
        "filter": filter_,
        "hint": hint,
        "digits": 3,
        "values": numbers,
    }


def _numbers(
    label: str,
    values: np.ndarray,
    filter_: str | None,
    hint: str | None = None,
) -> dict[str, Any]:
    """Return a column of any numbers: whole ones as they are, others to 5 significant digits."""
    finite = values[np.isfinite(values)]
    whole = bool(np.all((finite == np.trunc(finite)) & (np.abs(finite) < _EXACT)))
    numbers = [_rounded(v) if math.isfinite(v) else None for v in map(float, values)]
    return {
        "label": label,
        "kind": "number",
        "filter": filter_,
        "hint": hint,
        "digits": 0 if whole else None,
        "values": numbers,
    }


def _rounded(value: float) -> float:
    """Return a number of which only a fraction is rounded."""
    if abs(value) < _EXACT and (value == int(value) or abs(value) >= 10_000):
        return round(value)
    rounded = float(f"{value:.5g}")
    return rounded if math.isfinite(rounded) else value


def _has_long_integers(column: pa.ChunkedArray) -> bool:
    """Return whether integers, such as hashes, are too long for the page's numbers."""
    if not pa.types.is_integer(column.type):
        return False
    ends = pc.min_max(column).as_py().values()
    return any(end is not None and abs(end) >= _EXACT for end in ends)


def _text_column(label: str, values: list[str | None], *, choose: bool = True) -> dict[str, Any]:
    shown = [None if value is None else middle(clean(value), 80) for value in values]
    few = choose and len(set(shown)) <= _MOST_CHOICES
    filter_ = "choice" if few else "search"
    return {"label": label, "kind": "text", "filter": filter_, "values": shown}
