"""Which rows of a manifest are done: one compressed bitmap for each manifest file."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from iqa_core.schema import IDENTITY, MANIFEST_FILE, MANIFEST_ROW, InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from iqa_core.files import Folder

__all__ = ["RowSet", "read_committed"]


class RowSet:
    """A set of row identities (manifest file, row number) that counts what is added twice."""

    def __init__(self) -> None:
        self._files: dict[str, BitMap] = defaultdict(BitMap)
        self.duplicates = 0

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return sum(len(rows) for rows in self._files.values())

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table with the two identity columns."""
        for file in table.column(MANIFEST_FILE).unique().to_pylist():
            mask = pc.equal(table.column(MANIFEST_FILE), file)
            rows = table.column(MANIFEST_ROW).filter(mask).to_numpy()
            bitmap = self._files[file]
            before = len(bitmap)
            bitmap |= BitMap(rows.astype("uint32"))
            self.duplicates += len(rows) - (len(bitmap) - before)

    def rows(self, file: str) -> BitMap:
        """Return the row numbers of one manifest file."""
        return self._files.get(file, BitMap())

    def files(self) -> set[str]:
        """Return the manifest files that have rows here."""
        return {file for file, rows in self._files.items() if rows}


def read_committed(output: Folder) -> RowSet:
    """Return the rows that the part files of a run hold.

    Raises:
        InputError: If a part file can't be read.
    """
    committed = RowSet()
    for name in output.list("part-*.parquet"):
        try:
            with output.fs.open(output.path(name), "rb") as file:
                committed.add(pq.read_table(file, columns=list(IDENTITY)))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"part file {name} of {output.uri} can't be read ({error}): it was not written by "
                "this program, or was damaged since; move it away and run again"
            ) from error
    return committed
