"""Collects finished rows from Ray Data's blocks, commits them as part files and counts them."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import URI
from iqa_core.errors import InputError, Status
from iqa_core.storage.folder import has_scheme

from ..ray_errors import this_node
from .stage_columns import (
    DECODE_SECONDS,
    DECODED_ON,
    DEVICE,
    FETCH_SECONDS,
    MODEL_SECONDS,
    OUT_OF_MEMORY,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.sink import Sink

    from .breaker import Breaker

__all__ = ["Collector", "visible_here"]

_TIMINGS = {FETCH_SECONDS: "fetch", DECODE_SECONDS: "decode", MODEL_SECONDS: "model"}

#: A part file is written when this number of bytes is pending, even before the interval is over.
_PART_BYTES = 256 * 1024 * 1024


def visible_here(manifest: Manifest) -> Callable[[str], bool]:
    """Return a function that checks whether this process sees the image of a local path."""
    root = manifest.folder.root if manifest.folder.is_local else "/"

    def seen(uri: str) -> bool:
        path = uri.removeprefix("file://")
        return not has_scheme(path) and os.path.exists(os.path.join(root, path))

    return seen


class Collector:
    """Takes finished blocks, commits them at intervals, and counts.

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
        broken: The outage that was detected.
        devices: Rows by the device that scored them.
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
        self.broken: str | None = None
        self.devices: Counter[str] = Counter()
        self._sink = sink
        self._columns = schema.names
        self._seconds = commit_seconds
        self._breaker = breaker
        self._seen_here = seen_here
        self._here = this_node()[1]
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._clock = clock
        self._last = clock()

    def add(self, table: pa.Table) -> None:
        """Take one finished block.

        Raises:
            InputError: If another node lacks an image that this one has.
        """
        statuses = table.column("status").to_pylist()
        if Status.NOT_FOUND in statuses:
            self._check_shared(table)
        for column, stage in _TIMINGS.items():
            self.busy[stage] += pc.sum(table.column(column)).as_py() or 0.0
        self.out_of_memory += pc.sum(table.column(OUT_OF_MEMORY)).as_py() or 0
        for device in pc.value_counts(table.column(DEVICE)).to_pylist():
            self.devices[device["values"]] += device["counts"]
        self.statuses.update(statuses)
        finished = table.select(self._columns)
        self._pending.append(finished)
        self._pending_bytes += finished.nbytes
        if self._breaker is not None:
            self.broken = self._breaker.add(table.column(URI).to_pylist(), statuses)
            if self.broken:
                self._pending = [self._breaker.without_victims(part) for part in self._pending]

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

    @property
    def seconds_left(self) -> float:
        """Seconds until the next commit is due, with a small minimum."""
        return max(0.01, self._last + self._seconds - self._clock())

    def commit_if_due(self) -> None:
        """Commit if the interval is over, or if many bytes are pending."""
        if self._clock() - self._last >= self._seconds or self._pending_bytes >= _PART_BYTES:
            self.commit()

    def commit(self) -> None:
        """Commit all finished rows."""
        if any(map(len, self._pending)):
            self._sink.write(pa.concat_tables(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        self._last = self._clock()
