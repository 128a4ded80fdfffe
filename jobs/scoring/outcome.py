"""The outcome of a run: rows by status, rates, time by stage, devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .meter import Steady

__all__ = ["Outcome", "describe_outcome", "slowest_stage", "stage_workers", "utilisation"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        rows: Finished rows, without those that failed in an outage, which are not committed.
        statuses: Rows by status.
        seconds: From the first read to the last commit, without starting Ray.
        stage_seconds: Busy seconds of each stage, summed over workers.
        bottleneck: The stage with the least idle time, None if no row was scored.
        stopped: Whether a signal ended it early.
        broken: The outage that ended it early.
        out_of_memory: Batches that were halved because the device's memory was full.
        repeated: Rows that got the features of an image with equal bytes; None without `--dedupe`.
        devices: Rows by the device, node and process that scored them.
        left_out: The reasons why no actor could start on some nodes.
        stalls: How often nothing moved, or rows did not come, and what was left was begun again.
        start_up: Seconds from the command's begin until it reached its steady state; None without rows.
        steady: What was measured in the steady state; None if it was too short.
        driver_seconds: CPU seconds of the driver's process.
        workers: Workers of each stage; on CPUs the same ones do all.
    """

    rows: int
    statuses: dict[str, int]
    seconds: float
    stage_seconds: dict[str, float]
    bottleneck: str | None
    stopped: bool = False
    broken: str | None = None
    out_of_memory: int = 0
    repeated: int | None = None
    devices: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    stalls: int = 0
    start_up: float | None = None
    steady: Steady | None = None
    driver_seconds: float = 0.0
    workers: dict[str, float] = field(default_factory=dict)


def stage_workers(
    cpus: float, actor_cpus: float, actor_gpus: float, num_actors: int
) -> dict[str, float]:
    """Return the number of workers of each stage.

    Args:
        cpus: CPUs of the cluster.
        actor_cpus: CPUs of each scoring actor.
        actor_gpus: GPUs of each; without one, it also fetches and decodes.
        num_actors: Actors that scored.
    """
    actors = float(max(1, num_actors))
    beside = max(1.0, cpus - num_actors * actor_cpus) if actor_gpus else actors
    return {"fetch": beside, "decode": beside, "model": actors}


def utilisation(
    busy: Mapping[str, float], seconds: float, workers: Mapping[str, float]
) -> dict[str, float]:
    """Return the share of its workers' time in which each stage was busy.

    Args:
        busy: Busy seconds of each stage, summed over workers.
        seconds: Length of the time in which they were busy.
        workers: Workers of each stage.
    """
    return {stage: busy[stage] / max(1e-9, seconds * workers[stage]) for stage in busy}


def slowest_stage(busy: Mapping[str, float], workers: Mapping[str, float]) -> str | None:
    """Return the stage with the highest utilisation of its workers; None if none was busy."""
    load = utilisation(busy, 1.0, workers)
    return max(load, key=lambda stage: load[stage]) if any(busy.values()) else None


def describe_outcome(outcome: Outcome) -> str:
    """Return one line with rows, rates, bottleneck, statuses and devices."""
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.statuses.items()))
    rate = outcome.rows / max(outcome.seconds, 1e-9)
    parts = [f"{outcome.rows:,} rows in {duration(outcome.seconds)}, {rate:,.1f} rows/s"]
    if outcome.steady:
        parts.append(f"{outcome.steady.images_per_second:,.1f} rows/s in steady state")
    if outcome.start_up is not None:
        parts.append(f"{duration(outcome.start_up)} of start-up")
    if outcome.bottleneck:
        parts.append(f"bottleneck: {outcome.bottleneck}")
    parts.append(kinds)
    kinds_of_device = Counter(device.partition(" of ")[0] for device in outcome.devices)
    devices = ", ".join(f"{count} x {name}" for name, count in kinds_of_device.most_common())
    line = "; ".join(parts)
    return f"{line}; scored on {devices}" if devices else line
