"""The driver of a run: takes scored blocks from Ray Data and commits them.

Only the driver commits, at intervals of time: a crash loses at most the work of one interval, and
progress, audit and commit are in one place.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ray

from iqa_core.errors import InputError
from iqa_core.tables.manifest_reading import DamagedManifestError

from ..node_types import find_autoscaler
from ..progress import Progress
from ..ray_errors import NodeError, as_input_error, node_error
from .breaker import Breaker
from .collector import Collector, visible_here
from .dataset import pinned, scored_rows
from .feed import BlockFeed, ExecutionError, blocks_of
from .outcome import Outcome, slowest_stage, stage_workers
from .stalls import Stalls, is_stall
from .stop_requests import stop_requests
from .wait import Wait, let_go
from .watch import Watch, describe_devices

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import ray.data

    from iqa_core.tables.sink import Sink

    from .meter import Meter
    from .plan import ScoringPlan
    from .policy import RunPolicy
    from .pool import ActorPool
    from .settings import StageSettings

__all__ = ["run_pipeline"]

#: Nodes on which an actor could not start, or half of all, before the run gives up.
_MOST_LEFT_OUT = 8


def run_pipeline(
    plan: ScoringPlan,
    spec: StageSettings,
    pool: ActorPool,
    sink: Sink,
    policy: RunPolicy,
    *,
    began: float | None = None,
    enough: Callable[[Meter], bool] | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Score the rows of a plan and commit them.

    Args:
        plan: The rows to read.
        spec: How rows become scores.
        pool: The scoring actors.
        sink: Where rows are committed.
        policy: When to commit, and when to give up.
        began: When the command began, by ``time.monotonic``; by default now.
        enough: Returns whether the run may end before its last row, as one that only measures.
        watch: Follows the run; None tells nobody.

    Returns:
        The outcome.

    Raises:
        InputError: If the manifest can't be read, no node can score, or Ray fails.
    """
    pipeline_began = time.monotonic()
    breaker = Breaker(plan.manifest.folder.uri) if policy.stops_in_outage else None
    collector = Collector(
        sink, spec.schema, policy.commit_seconds, breaker, visible_here(plan.manifest)
    )
    progress = Progress(plan.rows)
    watch = watch or Watch()
    watch.follow(plan.rows, collector, progress)
    tower = pinned(spec)
    bad_nodes: list[NodeError] = []
    stalls = Stalls(policy.stall_minutes, progress)
    with collector, stop_requests() as stop:
        while plan.slices and not stop.is_set():
            chain = scored_rows(plan, spec, pool, tower, 60 * policy.stall_minutes)
            wait = Wait(pool, policy.wait_seconds, progress)
            has_failed = False
            try:
                if not _collect(chain, collector, progress, watch, stop, wait, enough):
                    break
                done = sink.committed().rows
                missing = plan.manifest.rows - len(done)
                if not missing or enough:
                    break
                stalls.begin_missing(missing, len(done))
                plan = plan.without(done)
            except ExecutionError as error:
                collector.commit()
                done = sink.committed().rows
                if is_stall(error):
                    if not wait.is_waiting():
                        stalls.begin_again(error, len(done))
                else:
                    bad_node = _node_to_leave_out(error, sink)
                    bad_nodes.append(bad_node)
                    pool = _without(pool, bad_node)
                    progress.say(f"{bad_node}: that node is left out")
                plan = plan.without(done)
                has_failed = True
            if has_failed:
                del chain
                let_go(pool)
    progress.close()
    meter = collector.meter
    cpus = ray.cluster_resources().get("CPU", 1.0)
    steady = meter.all_busy() if enough else meter.steady()
    workers = stage_workers(cpus, pool.cpus, pool.gpus, len(collector.devices))
    return Outcome(
        rows=collector.statuses.total(),
        statuses=dict(collector.statuses),
        seconds=time.monotonic() - pipeline_began,
        stage_seconds=collector.busy,
        bottleneck=slowest_stage(collector.busy, workers),
        stopped=stop.is_set(),
        broken=collector.broken,
        out_of_memory=collector.out_of_memory,
        repeated=collector.repeated,
        devices=dict(collector.devices),
        left_out=tuple(str(error) for error in bad_nodes),
        stalls=stalls.total,
        start_up=meter.start_up(pipeline_began if began is None else began, steady),
        steady=steady,
        driver_seconds=meter.driver_seconds,
        workers=workers,
    )


def _collect(
    chain: ray.data.Dataset,
    collector: Collector,
    progress: Progress,
    watch: Watch,
    stop: threading.Event,
    wait: Wait,
    enough: Callable[[Meter], bool] | None,
) -> bool:
    """Collect and commit the blocks of a chain; return whether it came to its end.

    Else a stop was requested, the images' store has an outage, or what came is enough.
    """
    table: Any = None
    with BlockFeed(blocks_of(chain)) as feed:
        while not stop.is_set() and not collector.broken:
            table = feed.next(timeout=min(0.5, collector.seconds_left))
            if table is feed.END:
                break
            if table is None:
                collector.meter.wait()
            else:
                with collector.committed_on_error():
                    collector.add(table)
                progress.add(collector.statuses, describe_devices(collector.devices))
                wait.end()
                if enough and enough(collector.meter):
                    break
            collector.commit_if_due()
            if feed.has_actors:
                wait.end_in_use()
            with collector.committed_on_error():
                wait.check()
            progress.tick()
            watch.tick(feed.queued)
        # Before the feed is closed, which may take longer than a stopped process has.
        collector.commit()
    return table is feed.END


def _node_to_leave_out(error: ExecutionError, sink: Sink) -> NodeError:
    """Return the node that an execution failed on.

    Raises:
        InputError: If it failed for another reason.
    """
    bad_node = node_error(error)
    if bad_node is not None:
        return bad_node
    failure = as_input_error(error)
    if isinstance(failure, DamagedManifestError):
        sink.note_damaged([failure.file])
    raise failure from error


def _without(pool: ActorPool, error: NodeError) -> ActorPool:
    """Return a pool that avoids a node.

    Raises:
        InputError: If no other node could hold an actor, or it was left out before.
    """
    smaller = pool.without(error.node)
    alive = [node for node in ray.nodes() if node["Alive"]]
    others = [
        node
        for node in alive
        if node["NodeID"] not in smaller.left_out
        and pool.fits(node["Resources"])
        and pool.score_on.allows(node["Labels"])
    ]
    most = max(_MOST_LEFT_OUT, len(alive) // 2)
    fix = "check its drivers and memory, or score on CPUs with --gpus 0; what was finished is safe"
    if len(smaller.left_out) > most:
        raise InputError(
            f"{error}; {len(smaller.left_out)} nodes have failed so, and at most {most} are left out: {fix}"
        ) from error
    # An autoscaler may start another.
    if error.node in pool.left_out or not (others or find_autoscaler()):
        raise InputError(f"{error}; no other node can take its place: {fix}") from error
    return smaller
