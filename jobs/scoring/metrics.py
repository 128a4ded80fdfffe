"""A run's Prometheus metrics, which Ray serves on each node beside its own.

Ray puts ``ray_`` before each name, and adds labels of its own. The driver sets all of them, from the rows
that it has: no worker is asked for anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.util.metrics import Counter, Gauge, Histogram

from .meter import STAGES
from .watch import nodes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .watch import Snapshot

__all__ = ["METRICS", "RUN_LABELS", "RunMetrics"]

#: Name -> kind, labels beside those of the run, and what it is. Counters have the suffix _total.
METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "iqa_rows_total": ("counter", ("status",), "finished rows"),
    "iqa_stage_seconds_total": ("counter", ("stage",), "busy seconds, summed over workers"),
    "iqa_blocks_total": ("counter", (), "finished blocks"),
    "iqa_driver_cpu_seconds_total": ("counter", (), "CPU seconds of the driver's process"),
    "iqa_cost_total": (
        "counter",
        (),
        "price of the cluster's CPUs and GPUs since the run began, by --cpu-price and --gpu-price",
    ),
    "iqa_rows_to_do": ("gauge", (), "rows that are not finished"),
    "iqa_rows_per_second": ("gauge", (), "finished rows per second in the last minute"),
    "iqa_seconds_left": ("gauge", (), "seconds for the rest at that rate; -1 if unknown"),
    "iqa_actors": ("gauge", (), "actors that have scored"),
    "iqa_nodes": ("gauge", (), "nodes of these actors"),
    "iqa_queued_blocks": ("gauge", (), "finished blocks that wait for the driver"),
    "iqa_uncommitted_rows": ("gauge", (), "finished rows that are in no part file yet"),
    "iqa_waiting": ("gauge", (), "1 while no node could hold a scoring actor"),
    "iqa_block_rows": ("histogram", (), "rows of a block, mean since the last report"),
}

#: Labels of every metric: the subcommand, and the shard, which is empty for a whole manifest.
RUN_LABELS = ("command", "shard")
_ROWS = [1.0, 8.0, 32.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0]


class RunMetrics:
    """Exports snapshots of a run as metrics (a watcher of :mod:`jobs.scoring.watch`).

    Args:
        command: The subcommand.
        shard: The part of the manifest, such as ``0/8``; empty for all of it.
    """

    def __init__(self, command: str, shard: str) -> None:
        labels = dict(zip(RUN_LABELS, (command, shard), strict=True))
        self._before: dict[tuple[str, str], float] = {}
        self._metrics = {name: _metric(name, labels) for name in METRICS}

    def note(self, snapshot: Snapshot) -> None:
        """Export a snapshot."""
        for status, count in snapshot.statuses.items():
            self._raise_to("iqa_rows_total", count, "status", status)
        for stage in STAGES:
            seconds = snapshot.stage_seconds.get(stage, 0.0)
            self._raise_to("iqa_stage_seconds_total", seconds, "stage", stage)
        rows = sum(snapshot.statuses.values())
        self._observe_blocks(rows, snapshot.blocks)
        self._raise_to("iqa_driver_cpu_seconds_total", snapshot.driver_seconds)
        self._raise_to("iqa_cost_total", snapshot.cost or 0.0)
        gauges = {
            "iqa_rows_to_do": snapshot.rows - rows,
            "iqa_rows_per_second": snapshot.rate,
            "iqa_seconds_left": -1 if snapshot.seconds_left is None else snapshot.seconds_left,
            "iqa_actors": len(snapshot.devices),
            "iqa_nodes": len(nodes_of(snapshot.devices)),
            "iqa_queued_blocks": snapshot.queued_blocks,
            "iqa_uncommitted_rows": snapshot.uncommitted_rows,
            "iqa_waiting": float(snapshot.waiting is not None),
        }
        for name, value in gauges.items():
            self._metrics[name].set(float(value))

    def close(self, state: str, snapshot: Snapshot | None) -> None:
        """Export the last snapshot."""
        if snapshot is not None:
            self.note(snapshot)

    def _observe_blocks(self, rows: int, blocks: int) -> None:
        new_blocks = blocks - self._before.get(("iqa_blocks_total", ""), 0.0)
        new_rows = rows - self._before.get(("rows", ""), 0.0)
        self._before["rows", ""] = rows
        if new_blocks > 0 and new_rows > 0:
            self._metrics["iqa_block_rows"].observe(new_rows / new_blocks)
        self._raise_to("iqa_blocks_total", blocks)

    def _raise_to(self, name: str, total: float, label: str = "", value: str = "") -> None:
        """Raise a counter to a total; Ray's are told by how much they rise."""
        more = total - self._before.get((name, value), 0.0)
        if more > 0:
            self._before[name, value] = total
            self._metrics[name].inc(more, {label: value} if label else None)


def _metric(name: str, labels: Mapping[str, str]) -> Any:  # noqa: ANN401 - any of Ray's three
    kind, own, text = METRICS[name]
    keys = (*RUN_LABELS, *own)
    metric: Any
    if kind == "counter":
        # Ray appends the suffix itself.
        metric = Counter(name.removesuffix("_total"), text, keys)
    elif kind == "gauge":
        metric = Gauge(name, text, keys)
    else:
        metric = Histogram(name, text, _ROWS, keys)
    return metric.set_default_tags(dict(labels))
