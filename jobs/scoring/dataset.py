"""The chain of a run: manifest -> encoded bytes -> pixels -> scored rows, on Ray Data.

Reading and decoding are Ray tasks; the image tower is held by Ray actors. Every failure becomes a
status on its row.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data
from ray.data._internal.logging import SessionFileHandler

from .actor import TowerActor
from .decode import BLOCK_BYTES, decode_rows
from .device_losses import DeviceLosses
from .read import read_rows

if TYPE_CHECKING:
    from .plan import ScoringPlan
    from .pool import ActorPool
    from .settings import ScoreSettings, StageSettings

__all__ = ["ActorHandles", "quiet_ray_data", "scored_rows"]

#: Maximum number of read tasks.
_READ_TASKS = 1000
#: Encoded bytes in one block between reading and decoding, by the manifest's average.
_ENCODED_BYTES = 128 * 1024 * 1024
#: Decode workers are replaced after this many tasks, as C decoders may leak.
_TASKS_PER_WORKER = 2000


@dataclass(frozen=True)
class ActorHandles:
    """What the scoring actors of a run share; it outlives each chain.

    Attributes:
        tower: The pickled reference of the image tower. Pickled, it is pinned in the object store for
            as long as this process lives.
        losses: Handle of the run's :class:`DeviceLosses`.
    """

    tower: bytes
    losses: Any

    @classmethod
    def create(cls, spec: StageSettings) -> ActorHandles:
        """Put the tower into the object store, and start the counter."""
        losses = ray.remote(num_cpus=0, max_restarts=-1)(DeviceLosses).remote()
        return cls(ray.cloudpickle.dumps(ray.put(spec.tower)), losses)


def scored_rows(
    plan: ScoringPlan, spec: StageSettings, pool: ActorPool, handles: ActorHandles
) -> ray.data.Dataset:
    """Return the chain from slices of manifest files to scored rows; nothing runs before it is consumed.

    Args:
        plan: The rows to read.
        spec: How rows become scores.
        pool: The scoring actors.
        handles: What the actors share.
    """
    quiet_ray_data()
    _set_context()
    rows = _block_rows(plan, spec)
    return (
        ray.data.from_arrow(_work(plan))
        .map_batches(_reader(plan, rows), batch_format="pyarrow", batch_size=None, num_cpus=1)
        .repartition(target_num_rows_per_block=rows)
        # `max_calls` also keeps Ray from fusing this stage with the next.
        .map_batches(
            partial(decode_rows, settings=spec.decode),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=1,
            max_calls=_TASKS_PER_WORKER,
        )
        .map_batches(
            TowerActor,
            fn_constructor_args=(handles.tower, spec.score, pool, handles.losses),
            batch_format="pyarrow",
            batch_size=_rows_per_call(spec.score, rows),
            compute=_strategy(pool, -(-plan.rows // rows)),
            label_selector=pool.label_selector,
            # Ray Data warns if both are given; one CPU is its default, also beside a GPU.
            num_cpus=None if pool.cpus == 1 else pool.cpus,
            num_gpus=pool.gpus or None,
        )
    )


def quiet_ray_data() -> None:
    """Turn off Ray Data's output on the terminal; its log files are still written."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, SessionFileHandler):
            handler.setLevel(logging.CRITICAL + 1)


def _set_context() -> None:
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = -1  # a cluster may take long to grow
    context.raise_original_map_exception = True  # otherwise only the text of an error is returned


def _block_rows(plan: ScoringPlan, spec: StageSettings) -> int:
    """Return the rows of a block: enough blocks for all CPUs, each with some seconds of work."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    rows = min(max(plan.rows // (4 * max(1, cpus)), spec.batch_size), 4 * spec.batch_size)
    return min(rows, plan.manifest.rows_within(_ENCODED_BYTES))


def _work(plan: ScoringPlan) -> list[pa.Table]:
    """Return the slices to read as tables, one for each read task."""
    table = pa.Table.from_pylist([vars(piece) for piece in plan.slices])
    step = -(-len(table) // _READ_TASKS)
    return [table.slice(i, step) for i in range(0, len(table), step)]


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


def _rows_per_call(settings: ScoreSettings, rows: int) -> int:
    """Return the rows of one call of an actor: Ray Data requires a number where there are GPUs."""
    each = settings.row_bytes()
    if each is None:  # of any size: at most as many as one forward pass takes
        return min(settings.batch_size, rows)
    return max(1, min(rows, BLOCK_BYTES // each))


def _strategy(pool: ActorPool, blocks: int) -> ray.data.ActorPoolStrategy:
    """Return a strategy that requests all of the pool's GPUs at once, so that a cluster grows at once.

    On CPUs the pool grows as there is room: reading and other jobs need CPUs too.
    """
    if pool.most is None:
        return ray.data.ActorPoolStrategy(min_size=1)
    first = max(1, min(pool.most, blocks)) if pool.gpus else 1
    return ray.data.ActorPoolStrategy(min_size=1, max_size=pool.most, initial_size=first)
