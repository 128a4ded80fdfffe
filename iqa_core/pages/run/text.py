"""Anything as HTML text: numbers, names and tables, without secrets and without markup.

URIs, errors and column values come from strangers: each goes through :func:`text`.
"""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, Any

from iqa_core.columns import MANIFEST_FILE, MANIFEST_ROW, URI

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "NONE",
    "clean",
    "flatten",
    "middle",
    "name_of",
    "number",
    "plural",
    "share",
    "short_name",
    "table_of",
    "text",
    "value_of",
]

NONE = "\N{EN DASH}"

# What must not travel with a page that is passed around: passwords and signatures in URIs.
_USER_INFO = re.compile(r"(\w://)[^/@\s]+@")
_QUERY = re.compile(r"(\w://[^\s?'\"]+)\?[^\s'\"]+")
# Control characters, and the marks that turn the direction of a text around.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(value: object) -> str:
    """Return anything as one line without secrets and without what is invisible."""
    text = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(value).split()))
    return _QUERY.sub(r"\1?…", _USER_INFO.sub(r"\1…@", text))


def text(value: object, limit: int = 400) -> str:
    """Return anything as HTML text or a quoted attribute: no secrets, no markup, not too long."""
    return html.escape(middle(clean(value), limit))


def middle(text: str, limit: int) -> str:
    """Return a text, cut in its middle if it is too long."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def name_of(row: Mapping[str, Any]) -> str:
    """Return what a person would call the row: its URI, or its place in the manifest."""
    return str(row[URI] or f"{row[MANIFEST_FILE]} row {row[MANIFEST_ROW]}")


def short_name(row: Mapping[str, Any]) -> str:
    """Return the last part of a row's name."""
    name = clean(name_of(row)).rstrip("/")
    return middle(name.rpartition("/")[2] or name, 34)


def number(value: float, digits: int = 3) -> str:
    """Return a number for people, a dash for none."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else NONE


def value_of(value: object) -> str:
    """Return a value of the run's JSON files for people."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(value_of(item) for item in value) or NONE
    return str(value)


def flatten(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Yield the leaves of a JSON document with their path as name."""
    for key, value in document.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{name}: ")
        else:
            yield name, None if value == {} else value


def share(count: int, total: int) -> str:
    """Return a count with its share of the total."""
    return f"{count:,} ({count / total:.1%})" if total else NONE


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table_of(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = ""
) -> str:
    """Return a table from cells that are HTML already; the first of a row is its heading."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="{kind}"><caption><span>{caption}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
