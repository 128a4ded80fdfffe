"""The outcome of a run: rows by status, time by stage, devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..progress import duration

__all__ = ["Outcome", "describe_outcome", "slowest_stage"]


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
        devices: Rows by the device, node and process that scored them.
        left_out: The reasons why no actor could start on some nodes.
    """

    rows: int
    statuses: dict[str, int]
    seconds: float
    stage_seconds: dict[str, float]
    bottleneck: str | None
    stopped: bool = False
    broken: str | None = None
    out_of_memory: int = 0
    devices: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def slowest_stage(
    busy: dict[str, float], cpus: float, actor_cpus: float, num_actors: int
) -> str | None:
    """Return the stage with the highest utilisation of its workers; None if none was busy.

    Args:
        busy: Busy seconds of ``fetch``, ``decode`` and ``model``, summed over workers.
        cpus: CPUs of the cluster.
        actor_cpus: CPUs of each scoring actor.
        num_actors: Actors that scored.
    """
    if not any(busy.values()):
        return None
    spare = cpus - num_actors * actor_cpus
    load = {stage: busy[stage] / max(1.0, spare) for stage in ("fetch", "decode")}
    load["model"] = busy["model"] / max(1, num_actors)
    return max(load, key=lambda stage: load[stage])


def describe_outcome(outcome: Outcome) -> str:
    """Return one line with rows, rate, bottleneck, statuses and devices."""
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.statuses.items()))
    rate = outcome.rows / max(outcome.seconds, 1e-9)
    slowest = f"; bottleneck: {outcome.bottleneck}" if outcome.bottleneck else ""
    line = f"{outcome.rows:,} rows in {duration(outcome.seconds)}, {rate:,.1f} rows/s{slowest}; {kinds}"
    kinds_of_device = Counter(device.partition(" of ")[0] for device in outcome.devices)
    devices = ", ".join(f"{count} x {name}" for name, count in kinds_of_device.most_common())
    return f"{line}; scored on {devices}" if devices else line
