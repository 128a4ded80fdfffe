"""Shards of a manifest: N contiguous, disjoint parts of its rows, for N drivers of one output.

A shard follows from the manifest alone: its files in the order of their names, and the rows of their row
groups. What is done has no part in it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.claim import Place

__all__ = ["Shard", "places_of", "ranges_of"]

#: A boundary is moved to that of a row group if it is this near, as a share of a shard's rows.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Shard:
    """One of several parts of a manifest.

    >>> str(Shard.of("2/8")), Shard.of("2/8").label
    ('shard 2/8', '0002-of-0008')

    Attributes:
        index: From 0 to below ``count``.
        count: Number of shards, at least 1.
    """

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Return the shard that ``K/N`` names.

        Raises:
            InputError: If it names none.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        index, count = map(int, found.groups()) if found else (0, 0)
        if not index < count:
            raise InputError(
                argument="shard",
                value=text,
                limit="K/N with 0 <= K < N, counted from 0",
                fix="8 drivers are 0/8 to 7/8",
            )
        return cls(index, count)

    @property
    def label(self) -> str:
        """Its name in file names."""
        return f"{self.index:04d}-of-{self.count:04d}"

    def __str__(self) -> str:
        """Return its name in messages."""
        return f"shard {self.index}/{self.count}"


def ranges_of(row_groups: Sequence[Sequence[int]], shard: Shard) -> list[range]:
    """Return the row numbers of a shard in each file of a manifest; empty in most of them.

    The manifest's rows are cut into equal parts. A cut that is near to the boundary of a row group is
    moved there, so that few row groups are read by two drivers.

    Args:
        row_groups: Rows of each row group, for each file.
        shard: The shard.
    """
    rows = [sum(groups) for groups in row_groups]
    ends = list(accumulate(rows))
    start = _cut(row_groups, ends, shard.count, shard.index)
    stop = _cut(row_groups, ends, shard.count, shard.index + 1)
    ranges = []
    for end, count in zip(ends, rows, strict=True):
        before = end - count
        ranges.append(range(min(max(start - before, 0), count), min(max(stop - before, 0), count)))
    return ranges


def _cut(row_groups: Sequence[Sequence[int]], ends: Sequence[int], count: int, index: int) -> int:
    """Return the row, counted over all files, at which a shard begins."""
    total = ends[-1] if ends else 0
    exact = total * index // count
    if exact in (0, total):
        return exact
    place = bisect_left(ends, exact)  # of the file that holds the row before the cut
    before = ends[place - 1] if place else 0
    bounds = accumulate(row_groups[place], initial=before)
    nearest = min(bounds, key=lambda bound: abs(bound - exact))
    return nearest if abs(nearest - exact) <= _TOLERANCE * total / count else exact


def places_of(names: Sequence[str], ranges: Sequence[range]) -> tuple[Place | None, Place | None]:
    """Return the places of a shard's first row and after its last, for its claim.

    Without rows, both are the beginning of everything: such a claim overlaps with none.

    Args:
        names: The manifest's files, sorted.
        ranges: Of :func:`ranges_of`.
    """
    inside = [(name, rows) for name, rows in zip(names, ranges, strict=True) if rows]
    if not inside:
        return ("", 0), ("", 0)
    (first, rows), (last, final) = inside[0], inside[-1]
    return (first, rows.start), (last, final.stop)
