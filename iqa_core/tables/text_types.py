"""Converts columns of text to numbers and booleans where the conversion is lossless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MISSING", "plain_types"]

#: What stands for "no value" among numbers. In columns of text it stays: NA is Namibia, too.
MISSING = frozenset(
    {"NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None", "-", "\u2013", "\u2014"}
)

_INTEGER = r"^(0|-?[1-9][0-9]*)$"
# Without a sign in the exponent, 12e4 is rather an id; a longer integer part would be rounded.
_FLOAT = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-][0-9]{1,3})?$"
_BOOLEANS = ({"true", "false"}, {"True", "False"}, {"TRUE", "FALSE"})


def plain_types(table: pa.Table, keep_text: Collection[str] = ()) -> pa.Table:
    """Convert columns of text to numbers and booleans where that is lossless.

    A column becomes int64 if every value is written as an integer of that range, float64 if every
    value is a number with a decimal point or a signed exponent or an integer of at most 15 digits,
    and bool if every value is true or false; :data:`MISSING` values become null there. Leading
    zeros, plus signs, ``12e4``, decimal commas, infinities and larger integers stay text, and so
    does the whole column.

    Args:
        table: Columns of type string; others stay as they are.
        keep_text: Names of columns that always stay text.

    Returns:
        A table of the same rows and columns.
    """
    for number, name in enumerate(table.column_names):
        column = table.column(number)
        if name not in keep_text and pa.types.is_string(column.type):
            table = table.set_column(number, name, _plain_type(column))
    return table


def _plain_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    bare = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(bare, value_set=pa.array(sorted(MISSING)))
    values = pc.if_else(missing, pa.scalar(None, pa.string()), bare)
    if values.null_count == len(values):
        return column
    for pattern, kind in ((_INTEGER, pa.int64()), (_FLOAT, pa.float64())):
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            try:
                return values.cast(kind)
            except pa.ArrowInvalid:  # above int64
                return column
    found = set(values.unique().drop_null().to_pylist()) if _has_few(values) else set()
    if any(found and found <= pair for pair in _BOOLEANS):
        return pc.equal(pc.utf8_lower(values), "true")
    return column


def _has_few(values: pa.ChunkedArray) -> bool:
    """Return whether the first values are booleans, before all of them are counted."""
    return set(values.slice(0, 100).unique().drop_null().to_pylist()) <= set().union(*_BOOLEANS)
