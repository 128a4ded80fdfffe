"""Columns of labels: found by name regardless of case and blanks; ids; conditions."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IMAGE_ID, URI
from iqa_core.errors import InputError
from iqa_core.evaluation.labels.numbers import parse_numbers
from iqa_core.tables.text_types import plain_types

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ID_COLUMNS",
    "category_texts",
    "find_column",
    "find_id_columns",
    "fulfils",
    "has_values",
    "id_texts",
    "read_numbers",
]

#: Names of columns of ids, the likeliest first; separators and case don't matter.
ID_COLUMNS = (
    *(IMAGE_ID, URI, "path", "file", "filename", "image", "image_path", "url"),
    *("file_path", "image_url", "image_name", "image_file", "img", "img_name", "name", "id"),
)
_TRUE = frozenset({"true", "yes", "t", "y", "1"})
_FALSE = frozenset({"false", "no", "f", "n", "0"})


def find_column(names: Sequence[str], wanted: str) -> tuple[str, str]:
    """Find a column by its name, or the only column whose name differs just in case and blanks.

    Args:
        names: The existing columns.
        wanted: The name that the user gave.

    Returns:
        Its name, empty if there is none, and a note if it differs from ``wanted``.
    """
    if wanted in names:
        return wanted, ""
    alike = [name for name in names if _fold(name) == _fold(wanted)]
    if len(alike) != 1:
        return "", ""
    return alike[0], f"column {alike[0]!r} is taken for {wanted!r}"


def _fold(name: str) -> str:
    name = unicodedata.normalize("NFC", name.strip("\ufeff \t\r\n\xa0")).casefold()
    return re.sub(r"[\s_-]", "", name)


def find_id_columns(table: pa.Table) -> list[str]:
    """Return the columns that may hold ids, the likeliest first; empty columns are left out.

    ``id`` is only used if there is no other: beside file names it numbers the rows.
    """
    found = [find_column(table.column_names, name)[0] for name in ID_COLUMNS]
    columns = [
        name
        for name in dict.fromkeys(filter(None, found))
        if table[name].null_count < len(table)
        and not pa.types.is_nested(table[name].type)
        and not pa.types.is_binary(table[name].type)
    ]
    return [name for name in columns if _fold(name) != "id"] or columns


def has_values(table: pa.Table, column: str) -> bool:
    """Return whether a table has a column with a value."""
    return column in table.column_names and table[column].null_count < len(table)


def id_texts(table: pa.Table, column: str, name: str) -> pa.Array:
    """Return a column of ids as (N,) text.

    Args:
        table: Of plain types.
        column: Its name in the table.
        name: The table's name in messages.

    Raises:
        InputError: If its type can't be text.
    """
    try:
        return pc.cast(table[column], pa.string()).combine_chunks()
    except pa.ArrowException as error:
        raise InputError(f"column {column} of {name} is {table[column].type}: {error}") from error


def read_numbers(
    table: pa.Table, column: str, name: str, *, delimiter: str = ""
) -> tuple[np.ndarray, list[str]]:
    """Return a column as (N,) float64, NaN where there is no finite number, and notes on how it was read.

    Args:
        table: Of plain types.
        column: Its name in the table.
        name: The table's name in messages.
        delimiter: Of the file, which hints at decimal commas.

    Raises:
        InputError: If a value is not a number.
    """
    kind = table[column].type
    what = f"column {column!r} of {name}"
    if pa.types.is_string(kind):
        parsed = parse_numbers(table[column], what, has_semicolons=delimiter == ";")
        return np.where(np.isfinite(parsed.values), parsed.values, np.nan), parsed.notes
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not number and not pa.types.is_null(kind):
        raise InputError(
            f"{what} is {kind}, but labels must be numbers, empty where there is none: name another "
            "with --label-column"
        )
    values = pc.cast(table[column], pa.float64(), safe=False).to_numpy()
    return np.where(np.isfinite(values), values, np.nan), []


def category_texts(column: pa.ChunkedArray, *, is_text: bool) -> pa.ChunkedArray:
    """Return a column of categories as text.

    Args:
        column: Of text, numbers or booleans.
        is_text: Whether its file has only text: then 3 and 3.0 are the same number, and true
            and TRUE the same, if all values are such.

    Raises:
        pyarrow.ArrowException: If its type can't be text.
    """
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        if is_text:
            column = plain_types(pa.table({"column": column})).column(0)
    return pc.cast(column, pa.string())


def fulfils(column: pa.ChunkedArray, value: str) -> np.ndarray:
    """Return which rows of a column have the value that a user gave.

    Args:
        column: (N,) of text, numbers or booleans.
        value: Compared as text; as a truth value (true, yes, 1) where all of the column's are; as a
            number where all of the column's are.

    Returns:
        (N,) bool; null has no value.

    Raises:
        pyarrow.ArrowException: If its type can't be text.
    """
    value = value.strip()
    texts = category_texts(column, is_text=False)
    distinct = pc.unique(texts).drop_null().to_pylist()
    wanted = {text for text in distinct if text == value}
    folded = {text: text.casefold() for text in distinct}
    if set(folded.values()) <= _TRUE | _FALSE:
        same = next((words for words in (_TRUE, _FALSE) if value.casefold() in words), frozenset())
        wanted |= {text for text in distinct if folded[text] in same}
    number = _as_float(value)
    numbers = {text: _as_float(text) for text in distinct} if number is not None else {}
    if None not in numbers.values():
        wanted |= {text for text in distinct if numbers and numbers[text] == number}
    met: np.ndarray = pc.is_in(texts, value_set=pa.array(sorted(wanted), pa.string())).to_numpy()
    return met


def _as_float(text: str) -> float | None:
    """Return a plain number; None for other texts, and for ids such as 007."""
    if not re.fullmatch(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-][0-9]+)?", text):
        return None
    return float(text)
