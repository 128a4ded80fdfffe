"""Tells others how a run goes, while it goes: metrics, and a file beside the output.

Watching is no part of the work: what fails here never ends or delays a run.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import ray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..prices import Prices
    from ..progress import Progress
    from .collector import Collector
    from .outcome import Outcome

__all__ = ["Snapshot", "Watch", "Watcher", "describe_devices", "nodes_of", "state_of"]

log = logging.getLogger(__name__)

#: Seconds between two snapshots.
_SECONDS = 5.0


@dataclass(frozen=True)
class Snapshot:
    """A run at a moment, as its driver knows it.

    Attributes:
        rows: Rows that this run has to do.
        statuses: Finished rows by status.
        blocks: Finished blocks.
        rate: Rows per second in the last minute.
        seconds_left: Seconds for the rest at that rate; None if unknown.
        waiting: What the run waits for; None if for nothing.
        stage_seconds: Busy seconds of each stage, summed over workers.
        devices: Rows by the device, node and process that scored them.
        queued_blocks: Finished blocks that wait for the driver.
        uncommitted_rows: Finished rows that are in no part file yet.
        seconds: Seconds since the run began.
        driver_seconds: CPU seconds of the driver's process.
        resources: Resources of the cluster, such as ``{"CPU": 16.0, "GPU": 1.0}``.
        cost: Price of the cluster's CPUs and GPUs since the run began; None without prices.
    """

    rows: int
    statuses: Mapping[str, int]
    blocks: int = 0
    rate: float = 0.0
    seconds_left: float | None = None
    waiting: str | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    queued_blocks: int = 0
    uncommitted_rows: int = 0
    seconds: float = 0.0
    driver_seconds: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    cost: float | None = None


class Watcher(Protocol):
    """Is told how a run goes."""

    def note(self, snapshot: Snapshot) -> None:
        """Take a snapshot; it must not wait for anything."""
        ...

    def close(self, state: str, snapshot: Snapshot | None) -> None:
        """Take the last snapshot: the run has ended.

        Args:
            state: ``finished``, ``stopped``, ``outage`` or ``failed``.
            snapshot: None if it ended before its first row was asked for.
        """
        ...


def nodes_of(devices: Mapping[str, int]) -> set[str]:
    """Return the nodes of devices, which are named ``DEVICE of NODE, process N``."""
    return {device.partition(" of ")[2].rpartition(", process ")[0] for device in devices}


def describe_devices(devices: Mapping[str, int]) -> str:
    """Return the number of actors that have scored, and of their nodes; empty before the first rows.

    >>> describe_devices({"CPU of node a, process 1": 9, "CPU of node a, process 2": 8})
    '2 actors on 1 node'
    """
    if not devices:
        return ""
    counts = {"actor": len(devices), "node": len(nodes_of(devices))}
    actors, nodes = (f"{n} {noun}{'' if n == 1 else 's'}" for noun, n in counts.items())
    return f"{actors} on {nodes}"


def state_of(outcome: Outcome, status: int) -> str:
    """Return the state in which a run has ended.

    Args:
        outcome: Its outcome.
        status: Its exit status.
    """
    if outcome.stopped:
        return "stopped"
    if outcome.broken:
        return "outage"
    return "failed" if status == 1 else "finished"


class Watch:
    """Takes snapshots of a run and passes them to watchers (a context manager).

    If the block is left without a call of :meth:`end`, the run has failed.

    Args:
        watchers: Who is told.
        prices: What the cluster costs; None where nobody said.
        resources: Returns the cluster's resources.
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.
    """

    def __init__(
        self,
        watchers: Sequence[Watcher] = (),
        prices: Prices | None = None,
        *,
        resources: Callable[[], Mapping[str, float]] = ray.cluster_resources,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watchers = watchers
        self._prices = prices
        self._resources = resources
        self._clock = clock
        self._began = self._costed = clock()
        self._cost = 0.0
        self._noted = float("-inf")
        self._run: tuple[int, Collector, Progress] | None = None
        self._state = "failed"

    def follow(self, rows: int, collector: Collector, progress: Progress) -> None:
        """Begin to follow a run.

        Args:
            rows: Rows that it has to do.
            collector: What is finished.
            progress: The rate of the last minute.
        """
        self._run = rows, collector, progress

    def tick(self, queued_blocks: int = 0) -> None:
        """Pass on a snapshot if one is due.

        Args:
            queued_blocks: Finished blocks that wait for the driver.
        """
        now = self._clock()
        if not self._watchers or now - self._noted < _SECONDS:
            return
        self._noted = now
        snapshot = self._snapshot(queued_blocks)
        if snapshot is not None:
            self._tell(lambda watcher: watcher.note(snapshot))

    def end(self, outcome: Outcome, status: int) -> None:
        """Note how the run has ended."""
        self._state = state_of(outcome, status)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watchers:
            last = self._snapshot(0)
            self._tell(lambda watcher: watcher.close(self._state, last))

    def _snapshot(self, queued_blocks: int) -> Snapshot | None:
        if self._run is None:
            return None
        rows, collector, progress = self._run
        now = self._clock()
        resources = self._known_resources()
        if self._prices is not None:
            self._cost += self._prices.hour(resources) * (now - self._costed) / 3600
        self._costed = now
        return Snapshot(
            rows=rows,
            statuses=dict(collector.statuses),
            blocks=collector.meter.blocks,
            rate=progress.rate(now),
            seconds_left=progress.seconds_left(now),
            waiting=progress.waiting,
            stage_seconds=dict(collector.busy),
            devices=dict(collector.devices),
            queued_blocks=queued_blocks,
            uncommitted_rows=collector.uncommitted_rows,
            seconds=now - self._began,
            driver_seconds=collector.meter.driver_seconds,
            resources=resources,
            cost=None if self._prices is None else self._cost,
        )

    def _known_resources(self) -> Mapping[str, float]:
        try:
            return self._resources()
        except Exception:  # Ray itself may be what fails
            return {}

    def _tell(self, action: Callable[[Watcher], None]) -> None:
        for watcher in self._watchers:
            try:
                action(watcher)
            except Exception:
                log.debug("watching failed", exc_info=True)
