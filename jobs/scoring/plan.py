"""What a run reads: a manifest, the columns to keep, and the rows that are still to do."""

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
    """What a run reads.

    Attributes:
        manifest: The manifest.
        keep: Its columns to carry into the output.
        slices: Slices of its files that are still to do.
        rows: Rows of these slices when the run began.
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
        """Return the plan for all rows of a manifest that are not done."""
        slices = tuple(plan_slices(manifest, done))
        return cls(manifest, keep, slices, manifest.rows - len(done), skip_damaged)

    def without(self, done: RowSet) -> ScoringPlan:
        """Return the plan for what is left after more rows were done."""
        return replace(self, slices=tuple(plan_slices(self.manifest, done)))
