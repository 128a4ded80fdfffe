"""What `iqa score` and `iqa embed` share: manifest -> encoded bytes -> pixels -> features -> rows.

Reading, fetching and decoding are Ray tasks; the image tower is held by Ray actors. Every failure
becomes a status on its row. The driver alone writes part files, at intervals of time: so a crash
costs at most that much finished work, and progress, audit and commit are in one place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from ray._private import ray_constants

from iqa_core.degradations import degraded_views
from iqa_core.features import EMBEDDING, VIEW_LEVELS, VIEWS, feature_column, score_columns
from iqa_core.fetching import Fetcher, redact
from iqa_core.files import Folder
from iqa_core.manifest import DATA, Unit, read_unit
from iqa_core.manifest_reading import READ_ERROR, DamagedManifestError
from iqa_core.schema import (
    HEIGHT,
    IDENTITY,
    URI,
    WIDTH,
    ImageError,
    InputError,
    Preprocess,
    Status,
)
from iqa_core.scoring import PromptFeatures, encode_images

from .isolation import Isolated, Watchdog, is_second_try
from .progress import Progress
from .ray_errors import user_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.images import Decoded
    from iqa_core.manifest import Manifest
    from iqa_core.output import Output
    from iqa_core.towers import ImageTower, Precision

    from .breaker import Breaker

__all__ = ["Actors", "Cluster", "Encoding", "plan_actors", "run_pipeline"]

_PIXELS = "_pixels"
_FETCH_SECONDS = "_fetch_seconds"
_MODEL_SECONDS = "_model_seconds"
_OUT_OF_MEMORY = "_out_of_memory"
_DECODE_SECONDS = "_decode_seconds"
_TIMINGS = {_FETCH_SECONDS: "fetch", _DECODE_SECONDS: "decode", _MODEL_SECONDS: "model"}

#: Reading is split among this many tasks at most.
_READ_TASKS = 1000
#: Pixel bytes in one block between decoding and the tower.
_BLOCK_BYTES = 64 * 1024 * 1024
#: Encoded bytes in one block between reading and decoding, by the manifest's average.
_ENCODED_BYTES = 128 * 1024 * 1024
#: A part file is written at the latest when this many bytes wait for it.
_PART_BYTES = 256 * 1024 * 1024
#: How long a stopped run waits for Ray to end its execution; the finished rows are safe by then.
_CLOSE_SECONDS = 10.0
#: Actors of one machine whose device a block may break before its rows are given up.
_DEVICE_LOSSES = 2
#: Decode workers are replaced after so many tasks, as C decoders may leak.
_TASKS_PER_WORKER = 2000


@dataclass(frozen=True)
class Encoding:
    """How rows become features and scores; travels to the workers.

    Attributes:
        fetcher: Reads images by URI.
        preprocess: How the tower wants its images; None leaves them at their own size.
        decoder: Encoded bytes to pixels; raises :class:`iqa_core.schema.ImageError`.
        precision: Arithmetic of the tower.
        batch_size: Images in one forward pass.
        width: Width of the image features.
        prompts: What the features are scored by; None only embeds.
        schema: The output's columns.
        views: Degraded copies of each image that are encoded beside it; they need ``preprocess``.
        decode_seconds: A decoder that takes longer over one image is taken to hang.
    """

    fetcher: Fetcher
    preprocess: Preprocess | None
    decoder: Callable[[bytes], Decoded]
    precision: Precision
    batch_size: int
    width: int
    prompts: PromptFeatures | None
    schema: pa.Schema
    views: int = 0
    decode_seconds: float = 120.0


@dataclass(frozen=True)
class Actors:
    """The pool of scoring actors.

    Attributes:
        most: Actors at most.
        cpus: CPUs of each, also its threads.
        gpus: GPUs of each; 0 scores on CPUs.
    """

    most: int
    cpus: float
    gpus: float


class Cluster:
    """The Ray that a run uses: the one this process has, that of an address, or a local one.

    Without an address, ``RAY_ADDRESS`` counts, which Ray sets for submitted jobs. A local Ray is
    started by :meth:`start` and not before: a run with nothing to do needs none. What was opened
    is closed at the end of the ``with`` block.

    Args:
        address: As for ``ray.init``.

    Attributes:
        resources: The cluster's, as ``ray.cluster_resources()`` has them.

    Raises:
        InputError: If there is no cluster at the address, or a local one does not start.
    """

    def __init__(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._opened = not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS")
        if address:
            _check_reachable(address)
        if self._opened and address:
            _init(f"--address {address} does not answer", address=address)
        if ray.is_initialized():
            self.resources: dict[str, float] = ray.cluster_resources()
        else:
            # Two at least: one reads and decodes while an actor holds the other.
            cpus = max(2, os.cpu_count() or 1)
            self.resources = {"CPU": float(cpus), "GPU": float(torch.cuda.device_count())}

    def start(self) -> None:
        """Start a local Ray, bound to loopback, if there is none yet."""
        if not ray.is_initialized():
            # Ray Data starts each actor with arguments in the object store, and Ray's core calls
            # that an error on the terminal; what happens to an actor is seen by its rows.
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            with _loopback():
                _init(
                    "a local Ray did not start",
                    address="local",
                    num_cpus=int(self.resources["CPU"]),
                    include_dashboard=False,
                )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened and ray.is_initialized():
            ray.shutdown()


@contextmanager
def _loopback() -> Iterator[None]:
    """Let the Ray that starts meanwhile listen on loopback only, as it does on macOS and Windows.

    ``ray.init`` has no option for that: it replaces 127.0.0.1 by the machine's address.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, variable = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this process, which has read the variable
    os.environ[name] = "0"  # for those that it starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if variable is None:
            os.environ.pop(name)
        else:
            os.environ[name] = variable


def _check_reachable(address: str) -> None:
    """Fail at once where nothing listens at HOST:PORT; ``ray.init`` tries for five minutes."""
    host, _, port = address.rpartition(":")
    if "/" in host or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"--address {address} does not answer ({error}): give HOST:PORT of a running head node, "
            "or leave it out for a local Ray"
        ) from error


def _init(what: str, **options: Any) -> None:  # noqa: ANN401 - ray.init's own
    # Ray says here that it protects a local cluster by a token, as it should.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        ray.init(logging_level=logging.WARNING, log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"{what} ({lines[0]}): check the address, `ray status` and `df -h`"
        ) from error


def plan_actors(
    number: int | None, cpus: float | None, gpus: float | None, resources: dict[str, float]
) -> Actors:
    """Fill in what the user left open: an actor for each GPU, or else for all CPUs but one.

    Args:
        number: ``--num-actors``.
        cpus: ``--cpus-per-actor``.
        gpus: ``--gpus-per-actor``.
        resources: Of the cluster, as ``ray.cluster_resources()`` has them.
    """
    have_gpus = resources.get("GPU", 0.0)
    gpus = (1.0 if have_gpus else 0.0) if gpus is None else gpus
    cpus = 1.0 if cpus is None else cpus
    if number is None:
        spare_cpus = max(1.0, resources.get("CPU", 1.0) - 1.0)  # reading must never starve
        number = int(have_gpus // gpus) if gpus else int(spare_cpus // cpus)
    return Actors(most=max(1, number), cpus=cpus, gpus=gpus)


def read_rows(
    table: pa.Table,
    *,
    folder: Folder,
    keep: Sequence[str],
    image_id_type: pa.DataType,
    batch_rows: int,
    schema: pa.Schema | None = None,
    skip_damaged: bool = False,
) -> Iterator[pa.Table]:
    """Read the units of work that a table lists (a Ray task)."""
    for row in table.to_pylist():
        yield from read_unit(
            folder,
            Unit(**row),
            keep,
            image_id_type,
            batch_rows,
            schema=schema,
            skip_damaged=skip_damaged,
        )


def decode_rows(table: pa.Table, *, encoding: Encoding) -> Iterator[pa.Table]:
    """Fetch and decode (a Ray task): adds pixels, size and status to each row."""
    guard: Isolated | Watchdog
    if is_second_try():
        guard = Isolated(encoding.decoder, encoding.decode_seconds)
    else:
        guard = Watchdog(encoding.decode_seconds)
    rows: list[dict[str, Any]] = []
    size = start = 0
    uris = pc.if_else(table.column(DATA).is_null(), table.column(URI), None).to_pylist()
    fetched = encoding.fetcher.stream([uri or None for uri in uris])
    files, numbers = (table.column(name).to_pylist() for name in IDENTITY)
    internal = [name for name in (DATA, READ_ERROR) if name in table.column_names]
    lost = table.column(READ_ERROR).to_pylist() if READ_ERROR in internal else [None] * len(table)
    with closing(guard):
        for position, embedded in enumerate(table.column(DATA)):
            began = time.perf_counter()
            data = next(fetched)
            if embedded.is_valid:
                data = encoding.fetcher.within_limit(embedded.as_py())
            elif reason := lost[position]:
                data = ImageError(Status.UNREADABLE, reason)
            got = time.perf_counter()
            row = _decode(data, encoding.decoder, guard)
            if encoding.views and row[_PIXELS] is not None:
                _add_views(row, encoding, f"{files[position]}:{numbers[position]}")
            row[_FETCH_SECONDS] = got - began
            row[_DECODE_SECONDS] = time.perf_counter() - got
            rows.append(row)
            size += len(row[_PIXELS] or b"")
            if size >= _BLOCK_BYTES or position == len(table) - 1:
                yield _append(table.slice(start, len(rows)).drop_columns(internal), rows)
                rows, size, start = [], 0, position + 1


def _decode(
    data: bytes | ImageError | None,
    decoder: Callable[[bytes], Decoded],
    guard: Isolated | Watchdog,
) -> dict[str, Any]:
    try:
        if data is None:
            raise ImageError(Status.INVALID_ROW, "the row has neither a uri nor image bytes")
        if isinstance(data, ImageError):
            raise data
        image = guard.call(decoder, data)
    except ImageError as error:
        return {"status": error.status.value, "error": error.message, _PIXELS: None}
    except Exception as error:  # a decoder may raise anything; the row must go on
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"status": Status.DECODE_ERROR.value, "error": reason, _PIXELS: None}
    return {
        "status": Status.OK.value,
        WIDTH: image.width,
        HEIGHT: image.height,
        _PIXELS: image.pixels.tobytes(),
    }


def _add_views(row: dict[str, Any], encoding: Encoding, key: str) -> None:
    """Append the pixels of degraded copies to a row's pixels."""
    height, width = encoding.preprocess.size if encoding.preprocess else (row[HEIGHT], row[WIDTH])
    image = np.frombuffer(row[_PIXELS], np.uint8).reshape(height, width, 3)
    views, row[VIEW_LEVELS] = degraded_views(image, encoding.views, key)
    row[_PIXELS] = b"".join([row[_PIXELS], *(view.tobytes() for view in views)])


_DECODED = pa.schema(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (_PIXELS, pa.large_binary()),
        (VIEW_LEVELS, pa.list_(pa.int8())),
        (_FETCH_SECONDS, pa.float32()),
        (_DECODE_SECONDS, pa.float32()),
    ]
)


def _append(table: pa.Table, rows: list[dict[str, Any]]) -> pa.Table:
    added = pa.Table.from_pylist(rows, schema=_DECODED)
    for name in added.column_names:
        table = table.append_column(name, added.column(name))
    return table


class TowerActor:
    """Holds the image tower and scores blocks of pixels (a Ray actor).

    Args:
        tower: The pickled reference of the image tower. Pickled, it is pinned in the object store
            for as long as the driver lives, so that a restarted actor finds it.
        encoding: What to do.
        actors: The pool that this one belongs to.
        run: A name that no other run has.
    """

    def __init__(self, tower: bytes, encoding: Encoding, actors: Actors, run: str) -> None:
        torch.set_num_threads(max(1, int(actors.cpus)))
        device = "cuda" if actors.gpus and torch.cuda.is_available() else "cpu"
        self.tower = ray.get(ray.cloudpickle.loads(tower)).to_device(device, encoding.precision)
        self.encoding = encoding
        self.run = run
        self.block = ""
        self.out_of_memory = 0

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace pixels by scores."""
        self.out_of_memory = 0
        self.block = "-".join(str(table.column(name)[0]) for name in IDENTITY) if table else ""
        began = time.perf_counter()
        places, images = self._images(table)
        copies = 1 + self.encoding.views
        shape = (len(table) * copies, self.encoding.width)
        features = np.full(shape, np.nan, dtype=np.float32)
        status = table.column("status").to_pylist()
        error = table.column("error").to_pylist()
        for start in range(0, len(images), self.encoding.batch_size):
            stop = start + self.encoding.batch_size
            encoded, failed = encode_images(self._encode, images[start:stop], self.encoding.width)
            features[places[start:stop]] = encoded
            for position, reason in failed.items():
                place = places[start + position] // copies
                status[place], error[place] = Status.MODEL_ERROR.value, reason
        features = features.reshape(len(table), -1)
        columns = {name: table.column(name) for name in table.column_names if name != _PIXELS}
        # A signed URI is a key to the image; the row's identity leads back to it.
        uris = [uri and redact(uri) for uri in table.column(URI).to_pylist()]
        columns[URI] = pa.array(uris, pa.string())
        columns |= {"status": pa.array(status, pa.string()), "error": pa.array(error, pa.string())}
        columns |= _result_columns(features, self.encoding)
        seconds = (time.perf_counter() - began) / max(1, len(table))
        columns[_MODEL_SECONDS] = pa.array([seconds] * len(table), pa.float32())
        halved = [self.out_of_memory] + [0] * (len(table) - 1)
        columns[_OUT_OF_MEMORY] = pa.array(halved[: len(table)], pa.int32())
        timings = [pa.field(name, pa.float32()) for name in _TIMINGS]
        fields = [*self.encoding.schema, *timings, pa.field(_OUT_OF_MEMORY, pa.int32())]
        wanted = {field.name: columns[field.name] for field in fields}
        return pa.table(wanted).cast(pa.schema(fields))

    def _encode(self, pixels: np.ndarray) -> torch.Tensor:
        try:
            features: torch.Tensor = self.tower.encode(pixels)
        except torch.OutOfMemoryError:
            self.out_of_memory += 1  # `encode_images` halves the batch and goes on
            raise
        except torch.AcceleratorError:
            # After such an error this process can't use the device any more, so that each image
            # would fail. Another actor does these rows again, unless they broke several.
            if _count_loss(f"{self.run} {self.block}") <= _DEVICE_LOSSES:
                os._exit(71)
            raise
        return features

    def _images(self, table: pa.Table) -> tuple[list[int], list[np.ndarray]]:
        places: list[int] = []
        images: list[np.ndarray] = []
        preprocess = self.encoding.preprocess
        sizes = zip(table.column(HEIGHT).to_pylist(), table.column(WIDTH).to_pylist(), strict=True)
        for place, (pixels, size) in enumerate(zip(table.column(_PIXELS), sizes, strict=True)):
            if pixels.is_valid:
                shape = (*(preprocess.size if preprocess else size), 3)
                copies = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(-1, *shape)
                places += range(place * len(copies), (place + 1) * len(copies))
                images += list(copies)
        return places, images


def _count_loss(what: str) -> int:
    """Return how often this was counted on this machine: Ray does not tell actors of their retries."""
    name = hashlib.sha256(what.encode()).hexdigest()[:32]
    for count in range(1, _DEVICE_LOSSES + 1):
        with suppress(FileExistsError):
            Path(tempfile.gettempdir(), f"iqa-loss-{name}-{count}").open("x").close()
            return count
    return _DEVICE_LOSSES + 1


def _result_columns(features: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
    """Return the columns that come of a row's features, and of those of its degraded copies."""
    # A row whose copy failed has failed, so that its score and its views are both there or neither.
    features = np.where(np.isfinite(features).all(axis=1, keepdims=True), features, np.nan)
    own = features[:, : encoding.width]
    columns: dict[str, pa.Array] = {}
    if encoding.prompts is not None:
        columns |= score_columns(own, encoding.prompts)
    if EMBEDDING in encoding.schema.names:
        columns[EMBEDDING] = feature_column(own)
    if encoding.views:
        columns[VIEWS] = feature_column(features[:, encoding.width :])
    return columns


def _quiet_ray_data() -> None:
    """Leave progress to ours, and only warnings to Ray Data's log on the terminal."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # These two show an error with all its traces, which ends the run in a line of ours.
    for name in ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def _dataset(
    manifest: Manifest,
    keep: Sequence[str],
    units: Sequence[Unit],
    rows: int,
    tower: ray.ObjectRef[ImageTower],
    encoding: Encoding,
    actors: Actors,
    skip_damaged: bool,
) -> ray.data.Dataset:
    _quiet_ray_data()
    cpus = int(ray.cluster_resources().get("CPU", 1))
    # Enough blocks for every CPU, yet each some seconds of work.
    block_rows = min(max(rows // (4 * cpus), encoding.batch_size), 4 * encoding.batch_size)
    block_rows = min(block_rows, manifest.rows_within(_ENCODED_BYTES))
    table = pa.Table.from_pylist([vars(unit) for unit in units])
    step = -(-len(table) // _READ_TASKS)
    reading = partial(
        read_rows,
        folder=manifest.folder,
        keep=tuple(keep),
        image_id_type=manifest.image_id_type,
        batch_rows=block_rows,
        schema=pa.schema([manifest.schema.field(name) for name in keep]),
        skip_damaged=skip_damaged,
    )
    return (
        ray.data.from_arrow([table.slice(i, step) for i in range(0, len(table), step)])
        .map_batches(reading, batch_format="pyarrow", batch_size=None, num_cpus=1)
        .repartition(target_num_rows_per_block=block_rows)
        # `max_calls` also keeps Ray from fusing this stage with the next.
        .map_batches(
            partial(decode_rows, encoding=encoding),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=1,
            max_calls=_TASKS_PER_WORKER,
        )
        .map_batches(
            TowerActor,
            fn_constructor_args=(ray.cloudpickle.dumps(tower), encoding, actors, uuid.uuid4().hex),
            batch_format="pyarrow",
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors.most),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus or None,
        )
    )


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
    """

    rows: int
    statuses: dict[str, int]
    seconds: float
    stage_seconds: dict[str, float]
    bottleneck: str | None
    stopped: bool = False
    broken: str | None = None
    out_of_memory: int = 0


def run_pipeline(
    manifest: Manifest,
    keep: Sequence[str],
    units: Sequence[Unit],
    rows: int,
    tower: ImageTower,
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
        InputError: If the manifest can't be read, or Ray fails.
    """
    began = time.monotonic()
    collected = _Collected(output, encoding.schema, commit_seconds, breaker)
    progress = Progress(rows)
    reference = ray.put(tower)
    dataset = _dataset(manifest, keep, units, rows, reference, encoding, actors, skip_damaged)
    try:
        with _stop_requests() as stop, _Feed(dataset) as feed:
            while not stop.is_set() and not collected.broken:
                table = feed.next(timeout=min(0.5, collected.seconds_left))
                if table is feed.END:
                    break
                if table is not None:
                    collected.add(table)
                    progress.add(collected.statuses)
                collected.commit_if_due()
                progress.tick()
            # Within the feed: closing it may take longer than a stopped process has.
            collected.commit()
    except ray.exceptions.RayError as error:
        collected.commit()
        if found := user_error(error):
            if isinstance(found, DamagedManifestError):
                output.note_damaged([found.file])
            raise found from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"Ray could not go on ({lines[-1].strip()[:300]}); what was finished is safe, and the same "
            "command goes on from there; the workers' own words are in Ray's session logs"
        ) from error
    progress.close()
    return Outcome(
        rows=collected.statuses.total(),
        statuses=dict(collected.statuses),
        seconds=time.monotonic() - began,
        stage_seconds=collected.busy,
        bottleneck=_bottleneck(collected.busy, actors),
        stopped=stop.is_set(),
        broken=collected.broken,
        out_of_memory=collected.out_of_memory,
    )


class _Collected:
    """Finished rows on their way into part files, and what they tell of the run.

    Args:
        output: Where they are committed.
        schema: The output's columns; others are the pipeline's own.
        commit_seconds: A part file is written this often.
        breaker: Notices outages; None goes on through them.
    """

    def __init__(
        self, output: Output, schema: pa.Schema, commit_seconds: float, breaker: Breaker | None
    ) -> None:
        self.statuses: Counter[str] = Counter()
        self.busy = dict.fromkeys(_TIMINGS.values(), 0.0)
        self.out_of_memory = 0
        self.broken: str | None = None
        self._output = output
        self._columns = schema.names
        self._seconds = commit_seconds
        self._breaker = breaker
        self._pending: list[pa.Table] = []
        self._last = time.monotonic()

    def add(self, table: pa.Table) -> None:
        """Take one finished block."""
        for column, stage in _TIMINGS.items():
            self.busy[stage] += pc.sum(table.column(column)).as_py() or 0.0
        self.out_of_memory += pc.sum(table.column(_OUT_OF_MEMORY)).as_py() or 0
        statuses = table.column("status").to_pylist()
        self.statuses.update(statuses)
        self._pending.append(table.select(self._columns))
        if self._breaker is not None:
            self.broken = self._breaker.add(table.column(URI).to_pylist(), statuses)
            if self.broken:
                self._pending = [self._breaker.without_victims(part) for part in self._pending]

    @property
    def seconds_left(self) -> float:
        """Seconds until it is time to write a part file, a moment at least."""
        return max(0.01, self._last + self._seconds - time.monotonic())

    def commit_if_due(self) -> None:
        """Write a part file if it is time to, or if much waits for it."""
        waiting = sum(table.nbytes for table in self._pending)
        if time.monotonic() - self._last >= self._seconds or waiting >= _PART_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write a part file of what is finished."""
        if any(map(len, self._pending)):
            self._output.commit(pa.concat_tables(self._pending))
        self._pending.clear()
        self._last = time.monotonic()


def _bottleneck(busy: dict[str, float], actors: Actors) -> str | None:
    """Return the stage whose workers were busiest for their number."""
    if not any(busy.values()):
        return None
    cpus = ray.cluster_resources().get("CPU", 1.0) - actors.most * actors.cpus
    load = {stage: busy[stage] / max(1.0, cpus) for stage in ("fetch", "decode")}
    load["model"] = busy["model"] / actors.most
    return max(load, key=lambda stage: load[stage])


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
        if isinstance(item, BaseException):
            raise item
        return item

    def __enter__(self) -> _Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the thread end Ray's execution, which takes at most one more block."""
        self._closed.set()
        try:
            self._thread.join(timeout=_CLOSE_SECONDS)
        finally:  # a second signal ends the wait
            # Ray Data's own threads go on for a moment; what they meet once Ray is gone is no news.
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)


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
