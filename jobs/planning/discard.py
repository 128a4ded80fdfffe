"""A sink that keeps nothing, for runs that only measure."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from iqa_core.tables.audit import Audit, Committed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

__all__ = ["Discard"]


class Discard:
    """A :class:`iqa_core.tables.sink.Sink` that keeps nothing."""

    def committed(self) -> Committed:
        """Return no rows."""
        return Committed()

    def start(self, config: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def write(self, table: pa.Table) -> None:
        """Do nothing."""

    def drop(self, statuses: Sequence[str]) -> int:
        """Do nothing."""
        return 0

    def note_damaged(self, files: Sequence[str]) -> None:
        """Do nothing."""

    def audit(self) -> Audit:
        """Return an audit of no rows."""
        return Audit(0, 0, 0, 0, 0, ())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Do nothing."""
