"""Sets of manifest rows: one compressed bitmap for each manifest file."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from iqa_core.columns import MANIFEST_FILE, MANIFEST_ROW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["RowSet", "bitmap_of", "rows_by_file", "rows_within"]


def bitmap_of(numbers: np.ndarray) -> BitMap:
    """Return the set of some row numbers, (N,) from 0 to below 2**32."""
    values = array("I", b"")
    values.frombytes(np.ascontiguousarray(numbers, dtype=np.uint32).tobytes())
    return BitMap(values)


def rows_by_file(table: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (manifest file, row numbers) of a table with the identity columns, each file once.

    The row numbers (N,) int64 are in the table's order.
    """
    for file, places in _places_by_file(table):
        rows = table.column(MANIFEST_ROW).to_numpy()
        yield file, rows if places is None else rows[places]


def rows_within(table: pa.Table, ranges: Mapping[str, range]) -> pa.Array:
    """Return a mask of a table's rows that lie in some ranges of row numbers, by manifest file."""
    inside = np.zeros(len(table), dtype=bool)
    numbers = table.column(MANIFEST_ROW).to_numpy()
    for file, places in _places_by_file(table):
        wanted = ranges.get(file, range(0))
        rows = numbers if places is None else numbers[places]
        mask = (rows >= wanted.start) & (rows < wanted.stop)
        inside[slice(None) if places is None else places] = mask
    return pa.array(inside)


def _places_by_file(table: pa.Table) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yield each manifest file of a table, and the places of its rows; None are all places."""
    column = table.column(MANIFEST_FILE)
    if not len(column):
        return
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries().combine_chunks()
    codes = column.indices.to_numpy()
    files = column.dictionary.to_pylist()
    if codes.min() == codes.max():
        yield files[codes[0]], None
        return
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for places in np.split(order, starts[1:]):
        yield files[codes[places[0]]], places


class RowSet:
    """A set of row identities (manifest file, row number) that counts duplicates.

    Attributes:
        duplicates: Rows that were added although they were already there.
    """

    def __init__(self) -> None:
        self._files: dict[str, BitMap] = defaultdict(BitMap)
        self.duplicates = 0

    @classmethod
    def of(cls, table: pa.Table) -> RowSet:
        """Return the rows of a table with the two identity columns."""
        rows = cls()
        rows.add(table)
        return rows

    @classmethod
    def of_bitmaps(cls, files: Mapping[str, BitMap]) -> RowSet:
        """Return the rows of some bitmaps, by manifest file; they are not copied."""
        rows = cls()
        rows._files.update(files)
        return rows

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return sum(map(len, list(self._files.values())))  # another thread may add a file

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same rows."""
        return isinstance(other, RowSet) and dict(self.bitmaps()) == dict(other.bitmaps())

    __hash__ = None  # type: ignore[assignment]

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table with the two identity columns, row numbers below 2**32."""
        for file, rows in rows_by_file(table):
            self._add(file, bitmap_of(rows), len(rows))

    def update(self, other: RowSet) -> None:
        """Add the rows of another set, and its duplicates."""
        self.duplicates += other.duplicates
        for file, rows in other._files.items():
            self._add(file, rows, len(rows))

    def _add(self, file: str, rows: BitMap, count: int) -> None:
        known = self._files.get(file)
        if known is None:
            self._files[file] = BitMap(rows)
            self.duplicates += count - len(rows)
            return
        before = len(known)
        known |= rows
        self.duplicates += count - (len(known) - before)

    def compact(self) -> None:
        """Store runs of adjacent rows as such; worth it after many additions."""
        for rows in self._files.values():
            rows.run_optimize()

    def missing(self, table: pa.Table) -> pa.Array:
        """Return a mask of a table's new rows: neither in the set nor earlier in the table."""
        found = np.zeros(len(table), dtype=bool)
        numbers = table.column(MANIFEST_ROW).to_numpy()
        for file, places in _places_by_file(table):
            rows = numbers if places is None else numbers[places]
            bitmap = bitmap_of(rows)
            if len(bitmap) == len(rows) and not bitmap.intersect(self.rows(file)):
                new: np.ndarray | slice = slice(None)  # all, as mostly
            else:
                values, first = np.unique(rows, return_index=True)
                left = np.frombuffer((bitmap - self.rows(file)).to_array(), dtype=np.uint32)
                new = first[np.searchsorted(values, left)]
            if places is None:
                found[new] = True
            else:
                found[places[new]] = True
        return pa.array(found)

    def within(self, ranges: Mapping[str, range]) -> RowSet:
        """Return the rows that lie in some ranges of row numbers, by manifest file."""
        inside = RowSet()
        inside._files.update(
            (file, rows & BitMap(ranges[file]))
            for file, rows in self._files.items()
            if ranges.get(file)
        )
        return inside

    def rows(self, file: str) -> BitMap:
        """Return the row numbers of one manifest file."""
        return self._files.get(file, BitMap())

    def files(self) -> set[str]:
        """Return the manifest files that have rows here."""
        return {file for file, rows in self._files.items() if rows}

    def bitmaps(self) -> Iterable[tuple[str, BitMap]]:
        """Return the manifest files that have rows here, with their row numbers."""
        return ((file, rows) for file, rows in self._files.items() if rows)
