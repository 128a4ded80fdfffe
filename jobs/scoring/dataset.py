"""The chain of a run: manifest -> encoded bytes -> pixels -> scored rows, on Ray Data.

Reading is a Ray task. On CPUs, Ray actors decode and score; with GPUs, Ray tasks decode and actors hold
the tower. Every failure becomes a status on its row.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data
from ray.data._internal.logging import SessionFileHandler

from iqa_core.tables.slices import small_first

from .actor import ImageActor, PixelActor
from .decode import BLOCK_BYTES, decode_rows
from .placement import DECODE_BYTES, READ_BYTES
from .read import read_rows
from .shared_weights import with_shared_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iqa_core.tables.slices import RowGroupSlice

    from .plan import ScoringPlan
    from .pool import ActorPool
    from .settings import ScoreSettings, StageSettings

__all__ = [
    "block_rows",
    "call_rows",
    "finished_rows",
    "pinned",
    "scored_pixels",
    "scored_rows",
    "set_up_ray_data",
]

#: Blocks in which the slices to read are handed to Ray, which spends some milliseconds on each.
_SLICE_BLOCKS = 200
#: Encoded bytes in one block between reading and decoding, by the manifest's average.
_ENCODED_BYTES = 128 * 1024 * 1024
#: Pixel bytes of a block that is decoded for one call of an actor: the driver spends as much on a small
#: block as on a large one.
_CALL_BYTES = 224 * 1024 * 1024
#: Ray Data splits blocks of more than 1.5 times as much; its default, 128 MiB, would split calls.
_TARGET_BYTES = 256 * 1024 * 1024
#: The driver spends some ten milliseconds on a block, whatever its rows.
_MOST_ROWS = 4096
#: Rows of one call of an actor that decodes JPEGs itself: a gigabyte of files of 12 megapixels.
_ENCODED_ROWS = 256
#: Decode workers are replaced after this many tasks, as C decoders may leak.
_TASKS_PER_WORKER = 2000
#: On CPUs, a second actor is not worth its start for fewer images of the model's size.
_LEAST_ROWS = 16
#: Most small blocks at the start of a run, of one forward pass each: its first rows come early.
_MOST_SMALL = 8
_MOST_READERS_TO_COME = 8
#: CPUs of a read task beside actors that hold all of a node's CPUs but this, each.
_SLIVER = 0.01


def pinned(spec: StageSettings) -> bytes:
    """Put the tower into the object store.

    Returns:
        Its pickled reference. Pickled, it is pinned for as long as this process lives.
    """
    reference: bytes = ray.cloudpickle.dumps(ray.put(with_shared_weights(spec.tower)))
    return reference


def scored_rows(
    plan: ScoringPlan, spec: StageSettings, pool: ActorPool, tower: bytes, stall_seconds: float
) -> ray.data.Dataset:
    """Return the chain from slices of manifest files to scored rows; nothing runs before it is consumed.

    On CPUs each actor fetches, decodes and scores. A GPU's actor scores what many tasks decode.

    Args:
        plan: The rows to read.
        spec: How rows become scores.
        pool: The scoring actors.
        tower: The tower's reference, as of :func:`pinned`.
        stall_seconds: Seconds without any movement after which the execution fails.
    """
    set_up_ray_data()
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = stall_seconds
    context.raise_original_map_exception = True  # otherwise only the text of an error is returned
    rows = block_rows(plan, spec, pool)
    if not pool.gpus:
        return _scored_images(plan, spec, pool, tower, rows)
    reading = {**_memory(pool, READ_BYTES), **pool.decode_on.ray_options()}
    encoded = _slices(plan.slices).map_batches(
        _reader(plan, rows), batch_format="pyarrow", batch_size=None, num_cpus=1, **reading
    )
    encoded = encoded.repartition(target_num_rows_per_block=rows)
    _schedule(encoded, reading)
    # `max_calls` also keeps Ray from fusing this stage with the next.
    pixels = encoded.map_batches(
        partial(decode_rows, settings=spec.decode, most_bytes=_block_bytes(spec.score)),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=1,
        max_calls=_TASKS_PER_WORKER,
        **_memory(pool, DECODE_BYTES),
        **pool.decode_on.ray_options(),
    )
    return scored_pixels(pixels, spec.score, pool, tower, rows, -(-plan.rows // rows))


def _scored_images(
    plan: ScoringPlan,
    spec: StageSettings,
    pool: ActorPool,
    tower: bytes,
    rows: int,
) -> ray.data.Dataset:
    """Return the chain for CPUs, which begins with a small block for each actor, up to some."""
    pieces = min(pool.at_start, _MOST_SMALL) if spec.batch_rows < rows else 0
    first = small_first(plan.slices[0], spec.batch_rows, pieces, rows)
    slices = _slices([*first, *plan.slices[1:]])
    # Reading states no memory: pending actors would take all that is free.
    encoded = slices.map_batches(
        _reader(plan, rows),
        batch_format="pyarrow",
        batch_size=None,
        compute=_few_tasks(len(plan.slices), pool),
        num_cpus=_SLIVER,
    )
    return _repartitioned(encoded, rows, len(plan.slices), pool).map_batches(
        ImageActor,
        fn_constructor_args=(tower, spec.decode, spec.score, pool),
        batch_format="pyarrow",
        batch_size=None,
        compute=_strategy(pool, -(-plan.rows // rows)),
        num_cpus=max(_SLIVER, pool.cpus - _SLIVER),
        **_memory(pool, pool.memory),
        **pool.score_on.ray_options(),
    )


def scored_pixels(
    pixels: ray.data.Dataset,
    settings: ScoreSettings,
    pool: ActorPool,
    tower: bytes,
    rows: int,
    blocks: int,
) -> ray.data.Dataset:
    """Append the scoring actors to a chain that yields pixels.

    Args:
        pixels: Tables of :meth:`jobs.scoring.pixels.PixelBlock.to_table`.
        settings: How pixels become scores.
        pool: The scoring actors.
        tower: The tower's reference, as of :func:`pinned`.
        rows: Most rows of one call.
        blocks: Approximate number of calls.
    """
    return pixels.map_batches(
        PixelActor,
        fn_constructor_args=(tower, settings, pool),
        batch_format="pyarrow",
        batch_size=call_rows(settings, rows),
        compute=_strategy(pool, blocks),
        # Ray Data warns if both are given; one CPU is its default, also beside a GPU.
        num_cpus=None if pool.cpus == 1 else pool.cpus,
        num_gpus=pool.gpus,
        **_memory(pool, pool.memory),
        **pool.score_on.ray_options(),
    )


def set_up_ray_data() -> None:
    """Leave blocks of one call whole; turn off Ray Data's output on the terminal, not in its log files."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = _TARGET_BYTES
    context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, SessionFileHandler):
            handler.setLevel(logging.CRITICAL + 1)


def block_rows(plan: ScoringPlan, spec: StageSettings, pool: ActorPool) -> int:
    """Return the rows of a block.

    Enough blocks for all CPUs, each with some seconds of work, and few enough for the driver: a larger
    cluster has larger blocks. With GPUs, whole calls of an actor.
    """
    cpus = _cpus(pool)
    most = _MOST_ROWS if pool.gpus else min(_MOST_ROWS, 4 * max(spec.batch_rows, cpus))
    rows = min(max(plan.rows // (8 * cpus), spec.batch_rows), most)
    if not pool.gpus:  # each actor gets its share of a short run, too
        least = 1 if spec.score.row_bytes() is None else _LEAST_ROWS
        rows = min(rows, max(least, -(-plan.rows // (4 * min(cpus, pool.at_start)))))
    rows = min(rows, plan.manifest.rows_within(_ENCODED_BYTES))
    if not pool.gpus:
        return rows
    call = call_rows(spec.score, rows)
    return rows // call * call  # whole calls, as Ray Data copies pixels to fill one


def finished_rows(plan: ScoringPlan, spec: StageSettings, pool: ActorPool) -> int:
    """Return the rows of a block that comes to the driver: of one call of an actor."""
    rows = block_rows(plan, spec, pool)
    return call_rows(spec.score, rows) if pool.gpus else rows


def _memory(pool: ActorPool, stated: int | None) -> dict[str, Any]:
    """Return the option that states a worker's memory, where the run states any.

    Ray then places no more workers on a node than its memory holds, instead of killing some of them.
    """
    return {} if pool.memory is None else {"memory": stated}


def _slices(slices: Sequence[RowGroupSlice]) -> ray.data.Dataset:
    """Return the slices to read, one a block: a read task has one slice, whose loss costs little."""
    rows = [vars(piece) for piece in slices]
    step = -(-len(rows) // _SLICE_BLOCKS)
    blocks = -(-len(rows) // step)
    # Not from_arrow: it waits for a task, and so for a CPU that is free.
    items: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=blocks)
    return items if step == 1 else _repartitioned(items, 1, blocks)


def _repartitioned(
    dataset: ray.data.Dataset, rows: int, inputs: int, pool: ActorPool | None = None
) -> ray.data.Dataset:
    """Return a data set in blocks of so many rows, by tasks that fit beside actors that hold all CPUs.

    Args:
        dataset: The data set.
        rows: Most rows of a block.
        inputs: Blocks that the tasks get.
        pool: The scoring actors, if the tasks run beside them.
    """
    repartitioned = dataset.repartition(target_num_rows_per_block=rows)
    # The default of one CPU is never free.
    _schedule(repartitioned, {"num_cpus": _SLIVER}, _few_tasks(inputs, pool))
    return repartitioned


def _schedule(
    repartitioned: ray.data.Dataset,
    options: Mapping[str, Any],
    compute: ray.data.TaskPoolStrategy | None = None,
) -> None:
    """Set the options of a repartition, which takes none.

    Ray fuses it with reading only where both are scheduled alike.
    """
    operator: Any = repartitioned._logical_plan.dag
    operator.ray_remote_args.update(options)
    if compute is not None:
        object.__setattr__(operator, "compute", compute)


def _cpus(pool: ActorPool) -> int:
    """Return the CPUs of the cluster, also those that are yet to come for the pool."""
    asked = 0.0 if pool.gpus else (pool.most or pool.at_start) * pool.cpus
    return max(_cpus_now(), int(asked))


def _cpus_now() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1.0)))


def _few_tasks(inputs: int, pool: ActorPool | None) -> ray.data.TaskPoolStrategy:
    """Return a strategy of few tasks at a time: before the actors start, hundreds of slivers are free.

    For nodes that are yet to come there are no more than the first of them has memory for.
    """
    yet_to_come = min(_MOST_READERS_TO_COME, _cpus(pool) // 4) if pool else 0
    return ray.data.TaskPoolStrategy(size=min(inputs, max(2, _cpus_now() // 4, yet_to_come)))


def _reader(plan: ScoringPlan, rows: int) -> partial[Any]:
    """Return the reading stage; the list of the manifest's files is not part of it."""
    manifest = plan.manifest
    return partial(
        read_rows,
        folder=manifest.folder,
        keep=plan.keep,
        image_id_type=manifest.image_id_type,
        batch_rows=rows,
        schema=pa.schema([manifest.schema.field(name) for name in plan.keep]),
        skip_damaged=plan.skip_damaged,
    )


def _block_bytes(settings: ScoreSettings) -> int:
    """Return the pixel bytes of a block that decoders yield."""
    each = settings.row_bytes()
    return BLOCK_BYTES if each is None else each * max(1, _CALL_BYTES // each)


def call_rows(settings: ScoreSettings, rows: int) -> int:
    """Return the rows of one call of an actor that decoders feed: Ray Data requires a number there.

    Args:
        settings: How pixels become scores.
        rows: Rows of a block that is read.
    """
    each = settings.row_bytes()
    if settings.jpegs:
        return min(max(settings.batch_rows, _ENCODED_ROWS), rows)
    if each is None:  # of any size: at most as many as one forward pass takes
        return min(settings.batch_rows, rows)
    return max(1, min(rows, _CALL_BYTES // each))


def _strategy(pool: ActorPool, blocks: int) -> ray.data.ActorPoolStrategy:
    """Return a strategy that requests the whole pool at once, so that a cluster grows at once.

    Two calls at a time keep a GPU busy: one prepares and finishes on the CPU while the other computes.
    """
    concurrency: dict[str, Any] = {}
    if pool.gpus:
        concurrency = {"max_concurrent_calls_per_actor": 2, "enable_true_multi_threading": True}
    return ray.data.ActorPoolStrategy(
        min_size=1,
        max_size=pool.most,
        initial_size=max(1, min(pool.at_start, blocks)),
        **concurrency,
    )
