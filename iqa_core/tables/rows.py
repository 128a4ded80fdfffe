"""Sets of manifest rows: one compressed bitmap for each manifest file."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from iqa_core.columns import MANIFEST_FILE, MANIFEST_ROW

__all__ = ["RowSet"]


class RowSet:
    """A set of row identities (manifest file, row number) that counts duplicates.

    Attributes:
        duplicates: Rows that were added although they were already there.
    """

    def __init__(self) -> None:
        self._files: dict[str, BitMap] = defaultdict(BitMap)
        self.duplicates = 0

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return sum(len(rows) for rows in self._files.values())

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table with the two identity columns, row numbers below 2**32."""
        for file in table.column(MANIFEST_FILE).unique().to_pylist():
            mask = pc.equal(table.column(MANIFEST_FILE), file)
            rows = table.column(MANIFEST_ROW).filter(mask).to_numpy()
            bitmap = self._files[file]
            before = len(bitmap)
            bitmap |= BitMap(rows.astype("uint32"))
            self.duplicates += len(rows) - (len(bitmap) - before)

    def missing(self, table: pa.Table) -> pa.Array:
        """Return a mask of a table's new rows: neither in the set nor earlier in the table."""
        found = []
        new: dict[str, set[int]] = defaultdict(set)
        files = table.column(MANIFEST_FILE).to_pylist()
        for file, row in zip(files, table.column(MANIFEST_ROW).to_pylist(), strict=True):
            found.append(row not in self.rows(file) and row not in new[file])
            new[file].add(row)
        return pa.array(found, pa.bool_())

    def rows(self, file: str) -> BitMap:
        """Return the row numbers of one manifest file."""
        return self._files.get(file, BitMap())

    def files(self) -> set[str]:
        """Return the manifest files that have rows here."""
        return {file for file, rows in self._files.items() if rows}
