"""How the runs of an output go, from the files that they leave in ``_run/``: readable from anywhere.

A run writes its progress every few seconds, and its lease has heartbeats. A run that reported last that it
runs, and has no heartbeat any more, is lost: its process was killed, or its machine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError
from iqa_core.storage.lease import is_dead_here

if TYPE_CHECKING:
    from collections.abc import Iterable

    from iqa_core.storage.folder import Folder

__all__ = ["RunState", "progress_name", "read_runs", "together"]

_PROGRESS = "_run/progress*.json"
_SUMMARY = "_run/summary*.json"
_LEASES = "_run/lease-*.json"


@dataclass(frozen=True)
class RunState:
    """How a run goes, or how it has ended.

    Attributes:
        shard: Its part of the manifest, such as ``0/8``; None for all of it.
        state: ``running``, ``waiting``, ``finished``, ``stopped``, ``outage``, ``failed`` or ``lost``;
            of several together also ``incomplete``: some are finished, and others have not begun.
        rows: Rows of the manifest, or of its shard.
        rows_done: Finished rows, those of earlier runs included.
        statuses: Finished rows of this run by status.
        rows_per_second: In the last minute that was reported; 0 for a run that does not run.
        seconds_left: Seconds for the rest; None if unknown or over.
        age: Seconds since the last report.
        heartbeat: Seconds since the last heartbeat; None without a lease.
        waiting: What it waits for.
        cost: Price of the cluster so far, in the currency of ``--cpu-price``.
        not_begun: Shards of which there is no report yet, of several together.
        facts: Anything else that it reported.
    """

    shard: str | None
    state: str
    rows: int
    rows_done: int
    statuses: dict[str, int]
    rows_per_second: float = 0.0
    seconds_left: float | None = None
    age: float = 0.0
    heartbeat: float | None = None
    waiting: str | None = None
    cost: float | None = None
    not_begun: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def failed_rows(self) -> dict[str, int]:
        """Rows that could not be scored, by status."""
        return {kind: count for kind, count in sorted(self.statuses.items()) if kind != "ok"}

    @property
    def division(self) -> str:
        """The number of shards that it is one of; empty for a run of all rows."""
        return (self.shard or "").partition("/")[2]

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("running", "waiting")


def progress_name(label: str | None) -> str:
    """Return the name of the file in which a run reports.

    Args:
        label: Of its shard (:attr:`iqa_core.tables.manifest_shard.Shard.label`); None without.
    """
    return f"_run/progress-{label}.json" if label else "_run/progress.json"


def read_runs(folder: Folder, now: datetime | None = None) -> list[RunState]:
    """Return the last run of an output, or of each of its shards.

    Args:
        folder: The output.
        now: The present time. Ages are its differences to the times of the store, so the clocks of this
            machine and of the store should agree to a few seconds.

    Raises:
        InputError: If no run has left anything there.
    """
    now = now or datetime.now(UTC)
    leases = _leases(folder, now)
    reports = [(name, _read(folder, name)) for name in folder.list(_PROGRESS)]
    found = [_state(report, _age(folder, name, now), leases) for name, report in reports if report]
    found = _of_one_division(found)
    if not found:  # of versions before 0.3, and of `iqa rescore`
        found = [
            _of_summary(summary, _age(folder, name, now))
            for name in folder.list(_SUMMARY)
            if (summary := _read(folder, name))
        ]
    if not found:
        raise InputError(
            f"--scores {folder.uri} holds no report of a run: give the --output of `iqa score` or "
            "`iqa embed`, some seconds after its start"
        )
    return found


def _of_one_division(runs: list[RunState]) -> list[RunState]:
    """Return the runs that divide the manifest as the newest does, and any other that is still alive.

    The rest of a sharded output may be done without shards, or by another number of them.
    """
    if not runs:
        return runs
    newest = min(runs, key=lambda run: run.age).division
    return [run for run in runs if run.division == newest or run.runs]


def together(runs: Iterable[RunState]) -> RunState:
    """Return all shards of an output as one: sums, and the state that needs most attention.

    Rows are those of the shards that have begun.
    """
    runs = list(runs)
    order = ("lost", "failed", "outage", "stopped", "waiting", "running", "finished")
    statuses: Counter[str] = Counter()
    for run in runs:
        statuses.update(run.statuses)
    left = [run.seconds_left for run in runs if run.runs]
    state = min((run.state for run in runs), key=order.index)
    not_begun = int(runs[0].division or 1) - len({run.shard for run in runs})
    costs = [run.cost for run in runs if run.cost is not None]
    return replace(
        runs[0],
        shard=None,
        state="incomplete" if state == "finished" and not_begun > 0 else state,
        rows=sum(run.rows for run in runs),
        rows_done=sum(run.rows_done for run in runs),
        statuses=dict(statuses),
        rows_per_second=sum(run.rows_per_second for run in runs),
        seconds_left=None if None in left else max((s for s in left if s), default=None),
        age=min(run.age for run in runs),
        heartbeat=None,
        cost=sum(costs) if costs else None,
        not_begun=max(0, not_begun),
        facts={},
    )


def _state(
    report: dict[str, Any], age: float, leases: dict[tuple[Any, Any], tuple[float, float]]
) -> RunState:
    state = str(report.get("state", "running"))
    beat = leases.get((report.get("host"), report.get("process")))
    heartbeat = beat[0] if beat else None
    waiting = report.get("waiting")
    if state == "running":
        if beat is None or beat[0] > beat[1]:
            state = "lost"
        elif waiting:
            state = "waiting"
    runs = state in ("running", "waiting")
    before = int(report.get("rows_done_before", 0))
    left = report.get("seconds_left")
    return RunState(
        shard=report.get("shard"),
        state=state,
        rows=int(report.get("rows", 0)),
        rows_done=before + int(report.get("rows_done", 0)),
        statuses={str(k): int(v) for k, v in report.get("statuses", {}).items()},
        rows_per_second=float(report.get("rows_per_second", 0.0)) if runs else 0.0,
        seconds_left=max(0.0, left - age) if runs and left is not None else None,
        age=age,
        heartbeat=heartbeat,
        waiting=waiting if runs else None,
        cost=report.get("cost"),
        facts=report,
    )


def _of_summary(summary: dict[str, Any], age: float) -> RunState:
    rows = int(summary.get("rows", 0))
    audit = summary.get("audit", {})
    missing = int(audit.get("missing", 0))
    return RunState(
        shard=str(audit.get("shard", "")).removeprefix("shard ") or None,
        state="finished" if summary.get("complete") else "stopped",
        rows=rows + missing,
        rows_done=rows,
        statuses=dict(summary.get("statuses", {})),
        age=age,
        facts=summary,
    )


def _leases(folder: Folder, now: datetime) -> dict[tuple[Any, Any], tuple[float, float]]:
    """Return the age of the last heartbeat and the lease's seconds, by host and process."""
    found = {}
    for name in folder.list(_LEASES):
        lease = _read(folder, name)
        age = _age(folder, name, now)
        if lease is not None and not is_dead_here(lease):
            key = lease.get("host"), lease.get("process")
            found[key] = (age, float(lease.get("seconds", 30.0)))
    return found


def _read(folder: Folder, name: str) -> dict[str, Any] | None:
    """Return a document; None if it is gone or no JSON object."""
    try:
        found = folder.read_json(name)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _age(folder: Folder, name: str, now: datetime) -> float:
    """Return the seconds since a file was written; infinite if it is gone."""
    try:
        written = folder.modified(name)
    except FileNotFoundError:
        return float("inf")
    if written.tzinfo is None:
        written = written.replace(tzinfo=UTC)
    return max(0.0, (now - written).total_seconds())
