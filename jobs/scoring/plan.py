"""The plan of a run: a manifest, the columns to keep, and the rows to read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iqa_core.tables.slices import plan_slices

if TYPE_CHECKING:
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.rows import RowSet
    from iqa_core.tables.slices import RowGroupSlice

__all__ = ["ScoringPlan"]


@dataclass(frozen=True)
class ScoringPlan:
    """The plan of a run: what it reads.

    Attributes:
        manifest: The manifest.
        keep: Its columns to carry into the output.
        slices: Slices of its files with unfinished rows.
        rows: Rows of these slices.
        skip_damaged: Give rows whose data in the manifest are damaged a status instead of ending the run.
    """

    manifest: Manifest
    keep: tuple[str, ...]
    slices: tuple[RowGroupSlice, ...]
    rows: int
    skip_damaged: bool = False

    @classmethod
    def of(
        cls, manifest: Manifest, keep: tuple[str, ...], done: RowSet, *, skip_damaged: bool = False
    ) -> ScoringPlan:
        """Return the plan for all unfinished rows of a manifest."""
        slices = tuple(plan_slices(manifest, done))
        return cls(manifest, keep, slices, manifest.rows - len(done), skip_damaged)

    def without(self, done: RowSet) -> ScoringPlan:
        """Return the plan for the remaining rows after more rows were finished."""
        rows = self.manifest.rows - len(done)
        return replace(self, slices=tuple(plan_slices(self.manifest, done)), rows=rows)
