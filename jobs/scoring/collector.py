"""Collects finished rows from Ray Data's blocks, commits them as part files and counts them."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import URI
from iqa_core.errors import InputError, Status
from iqa_core.storage.folder import has_scheme
from iqa_core.tables.rows import RowSet

from ..ray_errors import this_node
from .meter import Meter
from .stage_columns import (
    DECODE_SECONDS,
    DECODED_ON,
    DEVICE,
    FETCH_SECONDS,
    MODEL_SECONDS,
    OUT_OF_MEMORY,
    REPEATED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.sink import Sink

    from .breaker import Breaker

__all__ = ["Collector", "visible_here"]

_TIMINGS = {FETCH_SECONDS: "fetch", DECODE_SECONDS: "decode", MODEL_SECONDS: "model"}

#: A part file is written when this number of bytes is pending, even before the interval is over.
_PART_BYTES = 256 * 1024 * 1024
#: The run waits for a part file that is being written when this number of bytes is pending beside it.
_MOST_PENDING_BYTES = 512 * 1024 * 1024
#: Seconds from the first finished rows to the first commit.
_FIRST_COMMIT_SECONDS = 1.0


def visible_here(manifest: Manifest) -> Callable[[str], bool]:
    """Return a function that checks whether this process sees the image of a local path."""
    root = manifest.folder.root if manifest.folder.is_local else "/"

    def seen(uri: str) -> bool:
        path = uri.removeprefix("file://")
        return not has_scheme(path) and os.path.exists(os.path.join(root, path))

    return seen


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in pc.value_counts(column).to_pylist()}


class Collector:
    """Takes finished blocks, commits them at intervals in a thread, and counts (a context manager).

    At its end a commit that is under way is finished; :meth:`commit` begins the last one.

    Args:
        sink: Where rows are committed.
        schema: The output's columns; other columns of a block are the pipeline's own.
        commit_seconds: Seconds between commits.
        breaker: Detects outages; None ignores them.
        seen_here: Whether this process sees the image of a local path.
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.

    Attributes:
        statuses: Rows by status.
        busy: Busy seconds of each stage, summed over workers.
        out_of_memory: Batches that were halved because the device's memory was full.
        repeated: Rows that got the features of an image with equal bytes; None where none was looked for.
        broken: The outage that was detected.
        devices: Rows by the device that scored them.
        meter: When blocks came, and what they took.
    """

    def __init__(
        self,
        sink: Sink,
        schema: pa.Schema,
        commit_seconds: float,
        breaker: Breaker | None,
        seen_here: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.statuses: Counter[str] = Counter()
        self.busy = dict.fromkeys(_TIMINGS.values(), 0.0)
        self.out_of_memory = 0
        self.repeated: int | None = None
        self.broken: str | None = None
        self.devices: Counter[str] = Counter()
        self.meter = Meter(clock)
        self._sink = sink
        self._columns = schema.names
        self._seconds = commit_seconds
        self._breaker = breaker
        self._seen_here = seen_here
        self._here = this_node()[1]
        self._rows = RowSet()
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._clock = clock
        self._due = math.inf
        self._writer = ThreadPoolExecutor(1, "commit")
        self._writing: Future[None] | None = None

    def add(self, table: pa.Table) -> None:
        """Take one finished block.

        Rows that came before do not count: where a worker dies, Ray runs its task again, and its blocks
        need not end at the same rows.

        Raises:
            InputError: If another node lacks an image that this one has.
        """
        new = self._rows.missing(table)
        if new.false_count:
            table = table.filter(new)
        if not len(table):
            return
        self._rows.add(table)
        statuses = _counts(table.column("status"))
        if Status.NOT_FOUND in statuses:
            self._check_shared(table)
        busy = {
            stage: pc.sum(table.column(column)).as_py() or 0.0 for column, stage in _TIMINGS.items()
        }
        for stage, seconds in busy.items():
            self.busy[stage] += seconds
        self.out_of_memory += pc.sum(table.column(OUT_OF_MEMORY)).as_py() or 0
        if REPEATED in table.column_names:
            self.repeated = (self.repeated or 0) + (pc.sum(table.column(REPEATED)).as_py() or 0)
        devices = _counts(table.column(DEVICE))
        self.devices.update(devices)
        self.meter.add(devices, busy)
        self.statuses.update(statuses)
        finished = table.select(self._columns)
        self._pending.append(finished)
        self._pending_bytes += finished.nbytes
        if self._breaker is not None and self._breaker.concerns(statuses):
            uris, found = (table.column(name).to_pylist() for name in (URI, "status"))
            self.broken = self._breaker.add(uris, found)
            if self.broken:
                self._drop_victims(self._breaker)

    def _drop_victims(self, breaker: Breaker) -> None:
        """Take back rows of an outage that are not committed: the next run does them."""
        for place, part in enumerate(self._pending):
            self._pending[place] = breaker.without_victims(part)
            self.statuses.subtract(_counts(part.column("status")))
            self.statuses.update(_counts(self._pending[place].column("status")))
        self.statuses = +self.statuses

    def _check_shared(self, table: pa.Table) -> None:
        missing = table.filter(pc.equal(table.column("status"), Status.NOT_FOUND.value))
        for row in missing.select([URI, DECODED_ON]).to_pylist():
            uri, node = row[URI], row[DECODED_ON]
            if uri and node != self._here and self._seen_here(uri):
                raise InputError(
                    f"{node} can't see the image {uri}, but {self._here} can: put images on a filesystem "
                    "that all nodes share, or on an object store such as s3://; then run the same "
                    "command again"
                )

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(wait=True)

    @contextmanager
    def committed_on_error(self) -> Iterator[None]:
        """Commit all finished rows before an error of the block's ends the run."""
        try:
            yield
        except InputError:
            self.commit()
            raise

    @property
    def uncommitted_rows(self) -> int:
        """Finished rows that no part file has been begun for."""
        return sum(map(len, self._pending))

    @property
    def seconds_left(self) -> float:
        """Seconds until the next commit is due, with a small minimum."""
        return max(0.01, self._due - self._clock())

    def commit_if_due(self) -> None:
        """Begin a commit if the interval is over or many bytes are pending, and none is under way.

        The first is due soon after the first rows, which shows early that they can be written.

        Raises:
            InputError: If an earlier one failed.
        """
        if self._pending and self._due == math.inf:
            self._due = self._clock() + min(self._seconds, _FIRST_COMMIT_SECONDS)
        due = self._clock() >= self._due or self._pending_bytes >= _PART_BYTES
        if due and (self._writing is None or self._writing.done()):
            self._begin_commit()
        elif self._pending_bytes >= _MOST_PENDING_BYTES:
            self._finish_writing()  # the store is slower than the actors

    def commit(self) -> None:
        """Commit all finished rows; return when they are safe.

        Raises:
            InputError: If rows can't be written.
        """
        self._begin_commit()
        self._finish_writing()

    def _begin_commit(self) -> None:
        self._finish_writing()
        if any(map(len, self._pending)):
            self._writing = self._writer.submit(self._sink.write, pa.concat_tables(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        self._due = self._clock() + self._seconds

    def _finish_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
