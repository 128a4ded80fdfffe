"""The interface between a run and the storage of its rows: :class:`Sink`, and a wrapper for any sink.

``iqa_core.tables.output.Output`` is the sink of the package: part files in a folder. A sink is opened for
one manifest and one fingerprint; opening it checks that it holds no other run's rows, and writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from iqa_core.tables.schema import table_with
from iqa_core.tables.unscored import unscored_as_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from iqa_core.tables.audit import Audit, Committed
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.schema import ExtraColumn

__all__ = ["OpenSink", "Sink", "SinkWithColumns", "write_tables"]


class Sink(Protocol):
    """Stores a run's finished rows.

    A run calls, in this order: :meth:`committed` for the finished rows; :meth:`start`; within it
    :meth:`drop` for rows to do again, :meth:`write` many times, :meth:`audit` and :meth:`finish`.
    :meth:`write` is called from a thread of its own, one call at a time, and :meth:`committed` perhaps
    meanwhile; a connection to a database must allow that (``sqlite3``: ``check_same_thread=False``).
    An :class:`iqa_core.errors.InputError` from any of them ends the run with that line.
    """

    def committed(self) -> Committed:
        """Return the finished rows: those of earlier runs and those written since."""
        ...

    def start(self, config: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Begin to write: reserve the sink for this run until the context ends.

        Args:
            config: The run's options, as JSON holds them.

        Raises:
            InputError: If another run is writing to it, or it can't be written.
        """
        ...

    def write(self, table: pa.Table) -> None:
        """Write finished rows, all or none; once this returns they are committed.

        Args:
            table: N rows with the identity columns and ``status``, all of one schema. Rows that are
                ``ok`` without a finite score must become errors
                (:func:`iqa_core.tables.unscored.unscored_as_errors`).

        Raises:
            InputError: If they can't be written; none of them is committed then.
        """
        ...

    def drop(self, statuses: Sequence[str]) -> int:
        """Remove the rows with these statuses, so that they are done again; return their number."""
        ...

    def note_damaged(self, files: Sequence[str]) -> None:
        """Remember manifest files whose data are damaged, so that they may be restored later."""
        ...

    def audit(self) -> Audit:
        """Read the stored rows again, and compare them with the manifest."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Store the summary of a run; this is its last call."""
        ...


class OpenSink(Protocol):
    """Opens the sink of a run, such as the class :class:`iqa_core.tables.output.Output`."""

    def __call__(
        self,
        output: str,
        manifest: Manifest,
        fingerprint: Mapping[str, Any],
        lease_seconds: float,
        /,
    ) -> Sink:
        """Return a sink, and write nothing.

        Args:
            output: ``--output``.
            manifest: The manifest that is scored into it.
            fingerprint: What makes scores comparable; rows of different fingerprints must not mix.
            lease_seconds: ``--lease-seconds``.

        Raises:
            InputError: If it holds another run's rows, or can't be opened.
        """
        ...


class SinkWithColumns:
    """Adds extra columns to the rows of a sink.

    Args:
        sink: The sink that stores the rows.
        extra: The columns; the run's fingerprint must have them, too
            (:func:`iqa_core.tables.schema.schema_with`).
    """

    def __init__(self, sink: Sink, extra: Sequence[ExtraColumn]) -> None:
        self._sink = sink
        self._extra = tuple(extra)

    def committed(self) -> Committed:
        """Return the finished rows of the sink."""
        return self._sink.committed()

    def start(self, config: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Begin to write."""
        return self._sink.start(config)

    def write(self, table: pa.Table) -> None:
        """Compute the extra columns, and write the rows."""
        self._sink.write(table_with(unscored_as_errors(table), self._extra))

    def drop(self, statuses: Sequence[str]) -> int:
        """Remove rows with these statuses."""
        return self._sink.drop(statuses)

    def note_damaged(self, files: Sequence[str]) -> None:
        """Remember damaged manifest files."""
        self._sink.note_damaged(files)

    def audit(self) -> Audit:
        """Compare the stored rows with the manifest."""
        return self._sink.audit()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Store the summary."""
        self._sink.finish(summary)


def write_tables(
    sink: Sink,
    tables: Iterable[pa.Table],
    rows_per_write: int,
    on_table: Callable[[], object] = lambda: None,
) -> None:
    """Write tables of finished rows, several in one write.

    Args:
        sink: A started sink.
        tables: The rows.
        rows_per_write: Approximate number of rows in one write.
        on_table: Called after each table, such as to show progress.

    Raises:
        InputError: If rows can't be written.
    """
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        if sum(map(len, pending)) >= rows_per_write:
            sink.write(pa.concat_tables(pending))
            pending.clear()
        on_table()
    if pending:
        sink.write(pa.concat_tables(pending))
