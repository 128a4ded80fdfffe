"""The file beside an output that says how its run goes, for `iqa status`."""

from __future__ import annotations

import logging
import os
import platform
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from iqa_core.redaction import redact

from .watch import nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from iqa_core.storage.folder import Folder

    from .watch import Snapshot

__all__ = ["ProgressFile"]

log = logging.getLogger(__name__)

#: Seconds between two writes: each is a request to the store.
_SECONDS = 10.0
#: Seconds that the end of a run waits for the last write.
_LAST_SECONDS = 10.0
#: Devices that are listed; of more, only their number is.
_MOST_DEVICES = 64


class ProgressFile:
    """Writes snapshots of a run as JSON (a watcher of :mod:`jobs.scoring.watch`).

    It writes in a thread, one file at a time; a store that is slow or away never holds the run up.

    Args:
        folder: The output.
        name: The file's name in it.
        facts: What stays the same in a run: command, model, rows of the manifest, rows done before.
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        facts: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._name = name
        self._clock = clock
        self._now = now
        self._facts = {
            **facts,
            "host": platform.node(),
            "process": os.getpid(),
            "began": now(),
            "seconds_between": _SECONDS,
        }
        self._written = float("-inf")
        self._writer = ThreadPoolExecutor(1, "progress")
        self._writing: Future[None] | None = None

    def note(self, snapshot: Snapshot) -> None:
        """Begin to write a snapshot, if one is due and the last one is written."""
        now = self._clock()
        if now - self._written < _SECONDS or (self._writing and not self._writing.done()):
            return
        self._written = now
        document = self._document("running", snapshot)
        self._writing = self._writer.submit(self._write, document)

    def close(self, state: str, snapshot: Snapshot | None) -> None:
        """Write the last snapshot; return when it is written, or after ten seconds."""
        last = self._writer.submit(self._write, self._document(state, snapshot))
        wait([last], timeout=_LAST_SECONDS)
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _write(self, document: dict[str, Any]) -> None:
        try:
            self._folder.write_json(self._name, document)
        except Exception as error:
            log.debug("%s can't be written: %s", self._name, redact(str(error)))

    def _document(self, state: str, snapshot: Snapshot | None) -> dict[str, Any]:
        document = {**self._facts, "state": state, "updated": self._now()}
        if snapshot is None:
            return document
        done = sum(snapshot.statuses.values())
        devices = dict(snapshot.devices)
        return document | {
            "rows_of_run": snapshot.rows,
            "rows_done": done,
            "statuses": dict(snapshot.statuses),
            "rows_per_second": round(snapshot.rate, 3),
            "seconds_left": None if done >= snapshot.rows else _rounded(snapshot.seconds_left),
            "waiting": snapshot.waiting,
            "seconds": round(snapshot.seconds, 1),
            "stage_seconds": {name: round(s, 1) for name, s in snapshot.stage_seconds.items()},
            "uncommitted_rows": snapshot.uncommitted_rows,
            "driver_cpu_seconds": round(snapshot.driver_seconds, 1),
            "actors": len(devices),
            "nodes": len(nodes_of(devices)),
            "devices": devices if len(devices) <= _MOST_DEVICES else {},
            "cpus": snapshot.resources.get("CPU", 0.0),
            "gpus": snapshot.resources.get("GPU", 0.0),
            "cost": None if snapshot.cost is None else round(snapshot.cost, 4),
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
