"""Numbers, names and values as text for pages: one line, without secrets, not too long.

URIs, errors and column values are untrusted. :mod:`iqa_core.pages.html` puts each through
:func:`shorten` and escapes it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from iqa_core.columns import MANIFEST_FILE, MANIFEST_ROW, URI

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    "shorten",
    "significant",
    "value_of",
]

NONE = "\N{EN DASH}"

# Secrets that a page must not contain: passwords and signatures in URIs.
_USER_INFO = re.compile(r"(\w://)[^/@\s]+@")
_QUERY = re.compile(r"(\w://[^\s?'\"]+)\?[^\s'\"]+")
# Control characters, and marks that reverse the direction of text.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(value: object) -> str:
    """Return anything as one line without secrets and invisible characters."""
    text = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(value).split()))
    return _QUERY.sub(r"\1?…", _USER_INFO.sub(r"\1…@", text))


def shorten(value: object, limit: int = 400) -> str:
    """Return anything as one line, without secrets, cut in its middle if it is too long."""
    return middle(clean(value), limit)


def middle(text: str, limit: int) -> str:
    """Return a text, cut in its middle if it is too long."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def name_of(row: Mapping[str, Any]) -> str:
    """Return the name of a row: its URI, or its place in the manifest."""
    return str(row[URI] or f"{row[MANIFEST_FILE]} row {row[MANIFEST_ROW]}")


def short_name(row: Mapping[str, Any]) -> str:
    """Return the last part of a row's name."""
    name = clean(name_of(row)).rstrip("/")
    return middle(name.rpartition("/")[2] or name, 34)


def number(value: float, digits: int = 3) -> str:
    """Return a number with a fixed number of decimals; a dash for NaN and infinity."""
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else NONE


def significant(value: float) -> str:
    """Return a number with 4 significant digits; a dash for NaN and infinity."""
    return f"{value:,.4g}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else NONE


def value_of(value: object) -> str:
    """Return a value of a JSON document as text."""
    if value is None or value in ("", (), [], {}):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return significant(value) if abs(value) < 1000 else number(value, 0)
    if isinstance(value, list | tuple):
        return ", ".join(value_of(item) for item in value)
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
