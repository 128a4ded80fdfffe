"""A random sample of a manifest's rows, as a run reads them."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Self

from pyroaring import BitMap

from iqa_core.columns import IMAGE
from iqa_core.tables.slices import plan_slices

from ..scoring.plan import ScoringPlan

if TYPE_CHECKING:
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.rows import RowSet
    from iqa_core.tables.slices import RowGroupSlice

__all__ = ["SamplePlan", "sample_slices"]

#: Slices that are read: each read task costs more than the rows that it reads.
_SLICES = 64


@dataclass(frozen=True)
class SamplePlan(ScoringPlan):
    """The plan of a run that only measures."""

    @classmethod
    def draw(
        cls,
        manifest: Manifest,
        keep: tuple[str, ...],
        done: RowSet,
        number: int,
        seed: int,
        *,
        skip_damaged: bool = False,
    ) -> Self:
        """Return a plan for a sample of the unfinished rows. See :func:`sample_slices`."""
        slices = sample_slices(manifest, done, number, seed)
        rows = sum(len(BitMap.deserialize(each.wanted)) for each in slices)
        return cls(manifest, keep, slices, rows, skip_damaged)

    def without(self, done: RowSet) -> Self:
        """Return the same plan: nothing is kept of what was measured."""
        return self


def sample_slices(
    manifest: Manifest, done: RowSet, number: int, seed: int
) -> tuple[RowGroupSlice, ...]:
    """Draw rows at random from the whole manifest, in slices of its files in a random order.

    They come from 64 places at most. Where the manifest holds the images themselves, the rows of a
    place are adjacent ones, as all before them in their row group must be read.

    Args:
        manifest: The manifest.
        done: Rows to leave out.
        number: Rows to draw; all rows if there are no more.
        seed: The same seed draws the same rows of the same manifest.
    """
    slices = list(plan_slices(manifest, done))
    rows = [BitMap.deserialize(each.wanted) for each in slices]
    ends = list(accumulate(map(len, rows)))
    if not ends:
        return ()
    rng = random.Random(seed)  # noqa: S311 - no secret
    number = min(number, ends[-1])
    share = -(-number // _SLICES)
    wanted: Counter[int] = Counter()
    for row in rng.sample(range(ends[-1]), number):
        place = bisect_right(ends, row)
        room = min(len(rows[place]) - wanted[place], number - wanted.total())
        wanted[place] += min(share, room)
        if wanted.total() == number:
            break
    adjacent = IMAGE in manifest.schema.names
    drawn = [
        replace(slices[place], wanted=_draw(rows[place], count, rng, adjacent).serialize())
        for place, count in wanted.items()
        if count
    ]
    rng.shuffle(drawn)
    return tuple(drawn)


def _draw(rows: BitMap, count: int, rng: random.Random, adjacent: bool) -> BitMap:
    """Return some of the rows."""
    if adjacent:
        first = rng.randrange(len(rows) - count + 1)
        return rows[first : first + count]
    return BitMap([rows[place] for place in rng.sample(range(len(rows)), count)])
