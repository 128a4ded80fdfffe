"""The driver of a run: takes scored blocks from Ray Data and commits them as part files.

The driver alone writes part files, at intervals of time: so a crash costs at most that much finished
work, and progress, audit and commit are in one place.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from iqa_core.columns import URI
from iqa_core.errors import InputError, Status
from iqa_core.storage.folder import has_scheme
from iqa_core.tables.manifest import plan_units
from iqa_core.tables.manifest_reading import DamagedManifestError

from ..progress import Progress
from ..ray_errors import NodeError, as_input_error, node_error, this_node
from .actor import DeviceLosses
from .dataset import Workers, dataset
from .pool import waiting_for
from .settings import (
    DECODE_SECONDS,
    DECODED_ON,
    DEVICE,
    FETCH_SECONDS,
    MODEL_SECONDS,
    OUT_OF_MEMORY,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.clip.encoder import ImageEncoder
    from iqa_core.tables.manifest import Manifest, Unit
    from iqa_core.tables.output import Output

    from .breaker import Breaker
    from .pool import Actors
    from .settings import Encoding

__all__ = ["Outcome", "run_pipeline"]

_TIMINGS = {FETCH_SECONDS: "fetch", DECODE_SECONDS: "decode", MODEL_SECONDS: "model"}

#: A part file is written at the latest when this many bytes wait for it.
_PART_BYTES = 256 * 1024 * 1024
#: How long a stopped run waits for Ray to end its execution; the finished rows are safe by then.
_CLOSE_SECONDS = 10.0
#: How long it waits for the block that is on its way before it ends the execution itself.
_PATIENCE_SECONDS = 1.0
#: After so long without a block it is looked up whether the cluster could hold an actor at all.
_SILENCE_SECONDS = 10.0
#: Nodes on which an actor could not start, before the run gives up.
_MOST_LEFT_OUT = 8


@dataclass(frozen=True)
class Outcome:
    """What one run of the pipeline did.

    Attributes:
        rows: Rows finished; in an outage, those that it failed are not committed.
        statuses: Rows by status.
        seconds: From the first read to the last commit, without starting Ray.
        stage_seconds: Busy seconds of each stage, summed over workers.
        bottleneck: The stage that had the least time to spare, None if nothing was done.
        stopped: Whether a signal ended it early.
        broken: What outage ended it early.
        out_of_memory: Batches that were halved because the device's memory was full.
        devices: Rows by what scored them: device, node and process.
        left_out: What is wrong with nodes on which no actor could start.
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


def run_pipeline(
    manifest: Manifest,
    keep: Sequence[str],
    units: Sequence[Unit],
    rows: int,
    tower: ImageEncoder,
    encoding: Encoding,
    actors: Actors,
    output: Output,
    commit_seconds: float,
    breaker: Breaker | None = None,
    skip_damaged: bool = False,
) -> Outcome:
    """Score units of work and commit their rows to the output.

    Args:
        manifest: What is read.
        keep: Its columns to carry along.
        units: What is still to do.
        rows: Rows of these units.
        tower: The image tower, on the CPU.
        encoding: How rows become scores.
        actors: The pool of scoring actors.
        output: Where rows are committed.
        commit_seconds: A part file is written this often.
        breaker: Ends the run early in an outage; None goes on through it.
        skip_damaged: Give rows whose data in the manifest are damaged a status, and go on.

    Returns:
        What was done.

    Raises:
        InputError: If the manifest can't be read, no node can score, or Ray fails.
    """
    began = time.monotonic()
    collected = Collected(output, encoding.schema, commit_seconds, breaker, _seen_here(manifest))
    progress = Progress(rows)
    # Pickled, the reference is pinned in the object store for as long as this process lives.
    reference = ray.cloudpickle.dumps(ray.put(tower))
    losses = ray.remote(num_cpus=0, max_restarts=-1)(DeviceLosses).remote()
    left_out: list[NodeError] = []
    with _stop_requests() as stop:
        while True:
            workers = Workers(reference, encoding, actors, losses)
            chain = dataset(manifest, keep, units, rows, workers, skip_damaged=skip_damaged)
            try:
                _collect(chain, collected, progress, stop, partial(_waiting, actors))
                break
            except _ExecutionError as error:
                collected.commit()
                found = node_error(error)
                if found is None:
                    failure = as_input_error(error)
                    if isinstance(failure, DamagedManifestError):
                        output.note_damaged([failure.file])
                    raise failure from error
                left_out.append(found)
                actors = _without(actors, found)
                progress.say(f"{found}: that node is left out")
                units = list(plan_units(manifest, output.committed.rows))
                if not units:
                    break
    progress.close()
    return Outcome(
        rows=collected.statuses.total(),
        statuses=dict(collected.statuses),
        seconds=time.monotonic() - began,
        stage_seconds=collected.busy,
        bottleneck=_bottleneck(collected.busy, actors, len(collected.devices)),
        stopped=stop.is_set(),
        broken=collected.broken,
        out_of_memory=collected.out_of_memory,
        devices=dict(collected.devices),
        left_out=tuple(str(error) for error in left_out),
    )


def _collect(
    chain: ray.data.Dataset,
    collected: Collected,
    progress: Progress,
    stop: threading.Event,
    waiting: Callable[[], str | None],
) -> None:
    """Take what a chain yields until its end, a stop request or an outage, and commit it."""
    with _Feed(chain) as feed:
        heard = time.monotonic()
        while not stop.is_set() and not collected.broken:
            table = feed.next(timeout=min(0.5, collected.seconds_left))
            if table is feed.END:
                break
            if table is not None:
                collected.add(table)
                progress.add(collected.statuses)
                heard = time.monotonic()
            collected.commit_if_due()
            if time.monotonic() - heard > _SILENCE_SECONDS:
                heard = time.monotonic()
                progress.wait_for(waiting())
            progress.tick()
        # Within the feed: closing it may take longer than a stopped process has.
        collected.commit()


def _without(actors: Actors, error: NodeError) -> Actors:
    """Return a pool that stays off a node.

    Raises:
        InputError: If no other node could hold an actor, or it was left out before.
    """
    left_out = (*actors.left_out, error.node)
    need = {"CPU": actors.cpus, "GPU": actors.gpus}
    others = [
        node
        for node in ray.nodes()
        if node["Alive"]
        and node["NodeID"] not in left_out
        and all(node["Resources"].get(kind, 0.0) >= each for kind, each in need.items())
    ]
    if not others or len(left_out) > _MOST_LEFT_OUT or error.node in actors.left_out:
        raise InputError(
            f"{error}; no other node can take its place: check its drivers and memory, or score on "
            "CPUs with --gpus-per-actor 0; what was finished is safe"
        ) from error
    return replace(actors, left_out=left_out)


def _waiting(actors: Actors) -> str | None:
    """Return what the run waits for, if no node could hold an actor."""
    nodes = [
        node["Resources"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in actors.left_out
    ]
    return waiting_for(actors, nodes)


def _seen_here(manifest: Manifest) -> Callable[[str], bool]:
    """Return a function that says whether an image of a local path is there for this process."""
    root = manifest.folder.root if manifest.folder.is_local else "/"

    def seen(uri: str) -> bool:
        path = uri.removeprefix("file://")
        return not has_scheme(path) and os.path.exists(os.path.join(root, path))

    return seen


class Collected:
    """Finished rows on their way into part files, and what they tell of the run.

    Args:
        output: Where they are committed.
        schema: The output's columns; others are the pipeline's own.
        commit_seconds: A part file is written this often.
        breaker: Notices outages; None goes on through them.
        seen_here: Whether this process sees an image of a local path.
    """

    def __init__(
        self,
        output: Output,
        schema: pa.Schema,
        commit_seconds: float,
        breaker: Breaker | None,
        seen_here: Callable[[str], bool],
    ) -> None:
        self.statuses: Counter[str] = Counter()
        self.busy = dict.fromkeys(_TIMINGS.values(), 0.0)
        self.out_of_memory = 0
        self.broken: str | None = None
        self.devices: Counter[str] = Counter()
        self._output = output
        self._columns = schema.names
        self._seconds = commit_seconds
        self._breaker = breaker
        self._seen_here = seen_here
        self._here = this_node()[1]
        self._pending: list[pa.Table] = []
        self._waiting_bytes = 0
        self._last = time.monotonic()

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
        self._waiting_bytes += finished.nbytes
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
        """Seconds until it is time to write a part file, a moment at least."""
        return max(0.01, self._last + self._seconds - time.monotonic())

    def commit_if_due(self) -> None:
        """Write a part file if it is time to, or if much waits for it."""
        if time.monotonic() - self._last >= self._seconds or self._waiting_bytes >= _PART_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write a part file of what is finished."""
        if any(map(len, self._pending)):
            self._output.commit(pa.concat_tables(self._pending))
        self._pending.clear()
        self._waiting_bytes = 0
        self._last = time.monotonic()


def _bottleneck(busy: dict[str, float], actors: Actors, scoring: int) -> str | None:
    """Return the stage whose workers were busiest for their number."""
    if not any(busy.values()):
        return None
    cpus = ray.cluster_resources().get("CPU", 1.0) - scoring * actors.cpus
    load = {stage: busy[stage] / max(1.0, cpus) for stage in ("fetch", "decode")}
    load["model"] = busy["model"] / max(1, scoring)
    return max(load, key=lambda stage: load[stage])


class _ExecutionError(Exception):
    """Ray Data's execution failed; the cause is what it raised."""


class _Feed:
    """Takes scored blocks from Ray in a thread of its own, so that the driver never only waits."""

    END = object()

    def __init__(self, dataset: ray.data.Dataset) -> None:
        self._blocks: queue.Queue[Any] = queue.Queue(maxsize=64)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._pump, args=(dataset,), daemon=True)

    def _pump(self, dataset: ray.data.Dataset) -> None:
        try:
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                if not self._put(table):
                    return
            self._put(self.END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:  # noqa: ANN401 - a table, the end, or what went wrong
        while not self._closed.is_set():
            try:
                self._blocks.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False

    def next(self, timeout: float) -> Any:  # noqa: ANN401
        """Return the next table, ``END``, or None if there is none yet."""
        try:
            item = self._blocks.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise _ExecutionError(str(item)) from item
        if isinstance(item, BaseException):
            raise item
        return item

    def __enter__(self) -> _Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End Ray's execution: a thread of it that outlives `ray.shutdown` crashes the process."""
        self._closed.set()
        self._thread.join(timeout=_PATIENCE_SECONDS)  # it ends by itself at the next block
        if (
            self._thread.is_alive()
        ):  # no block comes: Ray waits for resources, or works on a long one
            for thread in threading.enumerate():
                if isinstance(thread, StreamingExecutor):
                    thread.shutdown(force=False)
        self._thread.join(timeout=_CLOSE_SECONDS)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn SIGTERM (job stop, spot notice) and SIGINT into an event; a second one acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # Installed after ray.init, whose own handlers would replace it.
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def request(number: int, _: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        print("stopping: writing what is finished", file=sys.stderr, flush=True)
        stop.set()

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
