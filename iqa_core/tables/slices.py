"""The work of a run: slices of manifest files, one for each task, with the rows that are not done yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyroaring import BitMap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqa_core.tables.manifest import Manifest, ManifestFile
    from iqa_core.tables.rows import RowSet

__all__ = ["RowGroupSlice", "plan_slices", "small_first"]

_ROWS_PER_SLICE = 50_000
#: Uncompressed bytes of the columns that are read; several row groups make a slice up to this.
_BYTES_PER_SLICE = 256 * 1024 * 1024


@dataclass(frozen=True)
class RowGroupSlice:
    """Rows of adjacent row groups of one manifest file, which one task reads.

    Attributes:
        file: Name of the manifest file.
        group: First row group.
        stop_group: The row group after the last.
        first: Row number, in the file, of the first group's first row.
        wanted: Serialised bitmap of the row numbers to read.
        digest: Of the file when the work was planned.
        stamp: Of the file when the work was planned.
    """

    file: str
    group: int
    stop_group: int
    first: int
    wanted: bytes
    digest: str | None = None
    stamp: str = ""


def plan_slices(manifest: Manifest, done: RowSet) -> Iterator[RowGroupSlice]:
    """Yield the slices that cover every unfinished row of the manifest once."""
    for file in manifest.files:
        if not file.wanted:
            continue
        remaining = BitMap(file.wanted) - done.rows(file.name)
        for group, stop_group, first, start, stop in _slices(file) if remaining else ():
            wanted = remaining & BitMap(range(start, stop))
            if wanted:
                yield RowGroupSlice(
                    file.name,
                    group,
                    stop_group,
                    first,
                    _serialised(wanted),
                    file.digest,
                    file.stamp,
                )


def small_first(
    row_slice: RowGroupSlice, rows: int, pieces: int, within: int
) -> list[RowGroupSlice]:
    """Take small pieces off the front of a slice, so that their rows are finished early.

    Args:
        row_slice: What to divide.
        rows: Rows of a piece.
        pieces: Number of pieces to take off.
        within: Rows at the front of the slice in which the pieces must lie: each is read from there.

    Returns:
        The pieces, as many as fit, and what is left; they cover each row once.
    """
    wanted = BitMap.deserialize(row_slice.wanted)
    found: list[BitMap] = []
    while len(found) < pieces and len(wanted) > rows:
        last = wanted[rows - 1]
        if last >= row_slice.first + within:
            break
        found.append(wanted & BitMap(range(last + 1)))
        wanted -= found[-1]
    return [replace(row_slice, wanted=_serialised(each)) for each in (*found, wanted)]


def _serialised(rows: BitMap) -> bytes:
    rows.run_optimize()
    serialised: bytes = rows.serialize()
    return serialised


def _slices(file: ManifestFile) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (first group, stop group, its first row, start row, stop row) that cover a file.

    Small row groups are combined and large ones split, so that tasks are neither too short nor too long.
    """
    sizes = file.group_bytes or (0,) * len(file.row_groups)
    first_group = start = row = size = 0  # the slice so far
    for group, (rows, more) in enumerate(zip(file.row_groups, sizes, strict=True)):
        too_large = row + rows - start > _ROWS_PER_SLICE or size + more > _BYTES_PER_SLICE
        if too_large and row > start:
            yield first_group, group, start, start, row
            first_group, start, size = group, row, 0
        for place in range(row, row + rows - _ROWS_PER_SLICE, _ROWS_PER_SLICE):
            yield group, group + 1, row, place, place + _ROWS_PER_SLICE
        if rows > _ROWS_PER_SLICE:
            last = row + (rows - 1) // _ROWS_PER_SLICE * _ROWS_PER_SLICE
            yield group, group + 1, row, last, row + rows
            first_group, start = group + 1, row + rows
        else:
            size += more
        row += rows
    if row > start:
        yield first_group, len(file.row_groups), start, start, row
