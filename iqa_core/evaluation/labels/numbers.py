"""Numbers in the texts that spreadsheets export: decimal commas, thousands separators, missing values.

The whole column decides how a cell is read: ``1,234`` is 1234 beside ``1,234.5`` and 1.234
beside ``0,75``. Alone it may be either, so such a column is refused rather than guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.errors import InputError
from iqa_core.tables.text_types import MISSING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["ParsedNumbers", "is_missing", "parse_numbers"]

#: Spellings of "no value" in a column of numbers, in lower case: R, Excel, pandas and databases.
_MISSING = frozenset(word.casefold() for word in MISSING) | {
    *("", "--", "---", "\u2212", ".", "?", "n.a.", "n.a", "#na", "<na>", "none", "nil", "missing"),
    *("nan", "-nan", "1.#qnan", "-1.#ind", "inf", "+inf", "-inf", "infinity", "-infinity"),
    *("\\n", "(null)", "(blank)", "(none)", "nat"),
    *("#value!", "#ref!", "#div/0!", "#num!", "#name?", "#null!", "#n/a n/a"),
}
#: Typographic spaces and signs, and their ASCII equivalents.
_PLAIN = str.maketrans(
    {"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2007": " ", "\u2212": "-", "\u2019": "'"}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {"\uff0e": ".", "\uff0c": ","}
)
_SHOWN = 2


def _pattern(decimal: str, separators: str) -> re.Pattern[str]:
    groups = rf"[1-9]\d{{0,2}}([{separators}])\d{{3}}(?:\1\d{{3}})*"
    indian = r"|[1-9]\d?(?:,\d{2})+,\d{3}" if decimal == "." else ""
    return re.compile(
        rf"[+-]?(?=[{decimal}]?\d)(?:{groups}{indian}|\d+)?(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?"
    )


_POINT, _COMMA = _pattern(".", ", '"), _pattern(",", ". '")


@dataclass(frozen=True, eq=False)
class ParsedNumbers:
    """A column of numbers.

    Attributes:
        values: (N,) float64, NaN where there is none.
        notes: How cells that are no plain numbers were read; empty if all are.
    """

    values: np.ndarray
    notes: list[str]


@dataclass(frozen=True)
class _Cell:
    """The values that one text may have, by its decimal sign; None where it is no such number."""

    text: str
    point: float | None
    comma: float | None

    @classmethod
    def read(cls, text: str) -> _Cell:
        plain = text.translate(_PLAIN).strip()
        point = comma = None
        if _POINT.fullmatch(plain):
            point = float(re.sub(r"[, ']", "", plain))
        if _COMMA.fullmatch(plain):
            comma = float(re.sub(r"[. ']", "", plain).replace(",", "."))
        return cls(text, point, comma)

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is a number in both ways, with different values."""
        return self.point is not None and self.comma is not None and self.point != self.comma

    @property
    def is_separated(self) -> bool:
        """Whether it certainly has a thousands separator."""
        return bool(
            re.search(r"\d([, .'])\d{2,3}(\1|[.,]).*|\d[ ']\d", self.text.translate(_PLAIN))
        )


def is_missing(text: str) -> bool:
    """Return whether a text stands for no value in a column of numbers, such as ``n/a`` or a dash."""
    return text.translate(_PLAIN).strip().casefold() in _MISSING


def parse_numbers(
    texts: pa.ChunkedArray, column: str, *, has_semicolons: bool = False
) -> ParsedNumbers:
    """Read a column of texts as numbers.

    Args:
        texts: (N,) strings, null where a cell is empty.
        column: Its name in messages.
        has_semicolons: Whether semicolons separate the columns, as spreadsheets write them where
            the comma is the decimal sign. A column that could be either is then read with decimal
            commas if each number has one: a wrong reading would be the same factor for all.

    Returns:
        The numbers.

    Raises:
        InputError: If a cell is no number and none of the usual words for a missing value, or if
            the column could be read in two ways.
    """
    counts = Counter(dict(zip(*_unique(texts), strict=True)))
    missing = {text: count for text, count in counts.items() if is_missing(text)}
    cells = [_Cell.read(text) for text in counts if text not in missing]
    wrong = [cell.text for cell in cells if cell.point is None and cell.comma is None]
    if wrong:
        number = sum(counts[text] for text in wrong)
        raise InputError(
            f"{column} is {texts.type}, but labels must be numbers, empty where there is none: "
            f"{number:,} of {len(texts):,} cells are no number, such as {_quoted(wrong)}: {_advice(wrong)}"
        )
    comma = _has_decimal_commas(cells, counts, column, has_semicolons)
    value_of = {cell.text: cell.comma if comma else cell.point for cell in cells}
    notes = [f"{column}: {note}" for note in _notes(cells, counts, comma, value_of)]
    if missing:
        most = ", ".join(
            f"{text.strip()!r} ({count:,})" for text, count in Counter(missing).most_common(3)
        )
        number = sum(missing.values())
        notes.append(f"{column}: {_count(number, 'cell')} read as missing: {most}")
    values = [np.nan if text is None else value_of.get(text, np.nan) for text in texts.to_pylist()]
    return ParsedNumbers(np.array(values, dtype=np.float64), notes)


def _unique(texts: pa.ChunkedArray) -> tuple[list[str], list[int]]:
    counted = pc.value_counts(texts.drop_null().combine_chunks())
    return counted.field(0).to_pylist(), counted.field(1).to_pylist()


def _has_decimal_commas(
    cells: Collection[_Cell], counts: Counter[str], column: str, has_semicolons: bool
) -> bool:
    """Return whether the column as a whole has decimal commas, and no decimal points.

    Raises:
        InputError: If there is evidence for both, or for neither where it matters.
    """
    point = [cell for cell in cells if cell.comma is None]
    comma = [cell for cell in cells if cell.point is None]
    either = [cell for cell in cells if cell.is_ambiguous]
    if point and comma:
        raise InputError(
            f"{column} has numbers with a decimal point, such as {_quoted([point[0].text])}, and with "
            f"a decimal comma, such as {_quoted([comma[0].text])}: write all of them with a point"
        )
    if not (point or comma):
        with_comma = [cell for cell in either if "," in cell.text]
        if not with_comma:
            if has_semicolons and 0 < len(either) < len(cells):
                _refuse(either, counts, column)  # 850 and 1.250
            return False  # 3.125 is a number with a decimal point unless much speaks against it
        if has_semicolons and len(with_comma) == len(cells):
            return True
        _refuse(with_comma, counts, column)
    sure = point or comma
    suspect = [cell for cell in either if (("," in cell.text) if point else ("." in cell.text))]
    values = [abs(_either(cell)) for cell in cells if cell not in suspect]
    if suspect and not any(cell.is_separated for cell in sure) and max(values) < 100:
        _refuse(suspect, counts, column)
    return bool(comma)


def _refuse(cells: Collection[_Cell], counts: Counter[str], column: str) -> None:
    first = next(iter(cells))
    number = _count(sum(counts[cell.text] for cell in cells), "number")
    raise InputError(
        f"{column} has {number} that can be read in two ways, such as {_quoted([first.text])}, which is "
        f"{first.point:.15g} or {first.comma:.15g}: "
        "write them with a decimal point and with nothing between thousands"
    )


def _either(cell: _Cell) -> float:
    value = cell.comma if cell.point is None else cell.point
    return 0.0 if value is None else value


def _notes(
    cells: Iterable[_Cell],
    counts: Counter[str],
    comma: bool,
    value_of: dict[str, float | None],
) -> list[str]:
    sign, separators = (",", "[. ']") if comma else (".", "[, ']")
    decimal = [cell.text for cell in cells if comma and sign in cell.text]
    grouped = [
        cell.text for cell in cells if re.search(rf"\d{separators}\d", cell.text.translate(_PLAIN))
    ]
    notes = []
    for what, found in (("decimal commas", decimal), ("thousands separators", grouped)):
        if found:
            read = ", ".join(
                f"{text.strip()!r} as {value_of[text]:.15g}" for text in found[:_SHOWN]
            )
            number = sum(counts[text] for text in found)
            notes.append(f"{_count(number, 'number')} read with {what}, such as {read}")
    return notes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _quoted(texts: Collection[str]) -> str:
    shown = [text if len(text) <= 40 else f"{text[:37]}..." for text in list(texts)[:_SHOWN]]
    return ", ".join(repr(text) for text in shown)


def _advice(texts: Collection[str]) -> str:
    if all(text.rstrip().endswith("%") for text in texts):
        return "remove the percent signs"
    if all(re.match(r"[+-]?\d", text.strip()) for text in texts):
        return "write numbers alone, without units, ranges or remarks"
    return "name another column with --label-column, or leave such cells empty"
