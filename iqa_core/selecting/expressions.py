"""Expressions of a user over the columns of outputs: SQL of DuckDB, checked before anything is read."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from iqa_core.columns import MANIFEST_ROW
from iqa_core.errors import InputError
from iqa_core.selecting.engine import identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.selecting.engine import Engine

__all__ = ["ROWS", "column_names", "condition", "expression", "finite", "number"]

#: The view that expressions are over.
ROWS = "_iqa_rows"

_UNKNOWN = re.compile(
    r'(?:Referenced (?:column|table) |Table |key )"([^"]+)"(?: not found| in struct)|'
    r'Could not find key "([^"]+)"|does not have a column named "([^"]+)"'
)
_NUMBER = re.compile(
    r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|BOOLEAN"
)
_SHOWN = 40  # column names in a message


def column_names(schema: pa.Schema, prefix: str = "") -> list[str]:
    """Return the names that expressions may use, those within structs with dots.

    >>> column_names(pa.schema([("score", pa.float32()), ("scores", pa.struct([("noise", pa.float32())]))]))
    ['score', 'scores', 'scores.noise']
    """
    names = []
    for field in schema:
        plain = re.fullmatch(r"[A-Za-z_]\w*", field.name)
        name = prefix + (field.name if plain else identifier(field.name))
        names.append(name)
        if pa.types.is_struct(field.type):
            inner = pa.schema([field.type.field(i) for i in range(field.type.num_fields)])
            names += column_names(inner, f"{name}.")
    return names


def condition(engine: Engine, given: str, option: str, known: Sequence[str]) -> str:
    """Check a condition and return it as SQL.

    Args:
        engine: Has the view :data:`ROWS`.
        given: The user's text.
        option: Where it was given, for messages.
        known: Names of columns, for messages.

    Raises:
        InputError: If it is no single expression over these columns, or is not true or false.
    """
    sql, kind = _checked(engine, given, option, known)
    if kind not in ("BOOLEAN", '"NULL"', "NULL"):
        raise InputError(
            f"--{option} {given!r} is a {kind.lower()}, not a condition: write a comparison, such as "
            "'score > 0.6'"
        )
    return sql


def number(engine: Engine, given: str, option: str, known: Sequence[str]) -> str:
    """Check an expression of numbers and return it as SQL of type DOUBLE.

    Args and errors as of :func:`condition`.
    """
    sql, kind = _checked(engine, given, option, known)
    if not _NUMBER.fullmatch(kind):
        raise InputError(
            f"--{option} {given!r} is a {kind.lower()}, not a number: name a column of numbers, such "
            "as score"
        )
    return f"CAST({sql} AS DOUBLE)"


def finite(value: str) -> str:
    """Return SQL of a DOUBLE that is null where a value is not finite."""
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def expression(engine: Engine, given: str, option: str, known: Sequence[str]) -> str:
    """Check an expression of any type and return it as SQL.

    Args and errors as of :func:`condition`.
    """
    return _checked(engine, given, option, known)[0]


def _checked(engine: Engine, given: str, option: str, known: Sequence[str]) -> tuple[str, str]:
    """Return an expression in parentheses, and its SQL type.

    Raises:
        InputError: If it has no meaning, or is not one value for each row.
    """
    sql = f"(\n{given}\n)"  # on lines of its own: it may end in a comment
    try:
        duckdb.SQLExpression(given)
        kinds = engine.columns(f"SELECT {sql} AS value FROM {ROWS}")
    except (duckdb.Error, ValueError) as error:
        raise InputError(f"--{option} {given!r}: {_reason(str(error), known)}") from error
    if len(kinds) > 1 or _changes_rows(engine, sql):
        raise InputError(
            f"--{option} {given!r} is not one value for each row: of all rows take a window, such as "
            "'score > avg(score) over ()', and of a list a function, such as list_max"
        )
    return sql, kinds[0][1]


def _changes_rows(engine: Engine, sql: str) -> bool:
    """Return whether an expression makes one row of many, or many of one."""
    # Beside a column an aggregate has no meaning; where only windows and single values are allowed, neither
    # has unnest.
    statements = (
        f"SELECT {MANIFEST_ROW}, {sql} AS value FROM {ROWS}",
        f"SELECT 1 FROM {ROWS} QUALIFY row_number() OVER () > 0 AND {sql} IS NOT NULL",
    )
    for statement, reason in zip(statements, ("GROUP BY", "UNNEST"), strict=True):
        try:
            engine.columns(statement)
        except duckdb.Error as error:
            if reason in str(error):
                return True
    return False


def _reason(message: str, known: Sequence[str]) -> str:
    """Return what is wrong with an expression, with columns that exist, in one line."""
    found = _UNKNOWN.search(message)
    if found is None:
        first = message.partition("\n\n")[0].partition("\n\tCandidate")[0]
        kind, _, rest = first.partition("Error: ")
        reason = " ".join((rest or kind).split())
        return f"{reason} (SQL of DuckDB; names of odd characters in double quotes)"
    name = next(group for group in found.groups() if group is not None)
    names = {column.lower(): column for column in known}
    if "struct" in message:  # the name is that of a field, of scores rather than of margins
        inner = [column for column in reversed(known) if "." in column]
        names = {column.lower().rpartition(".")[2]: column for column in inner}
    close = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    hint = f": did you mean {' or '.join(names[match] for match in close)}?" if close else "."
    if "Referenced column" in message:  # not a table or a field, of which a name has more parts
        quoted = name.replace("'", "''")
        hint = f"{hint} Text goes in single quotes: '{quoted}'."
    return f"there is no column {name!r}{hint} The columns are {_listed(known)}"


def _listed(known: Sequence[str]) -> str:
    more = f", and {len(known) - _SHOWN:,} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
