"""What `iqa score` and `iqa embed` share: manifest -> encoded bytes -> pixels -> features -> rows.

Reading, fetching and decoding are Ray tasks; the image tower is held by Ray actors. Every failure
becomes a status on its row.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data._internal.logging import SessionFileHandler

from iqa_core.columns import HEIGHT, IDENTITY, URI, VIEW_LEVELS, WIDTH
from iqa_core.errors import ImageError, Status
from iqa_core.images.degrade import degraded_views
from iqa_core.tables.manifest_reading import DATA, READ_ERROR, read_slice
from iqa_core.tables.slices import RowGroupSlice

from ..ray_errors import this_node
from .actor import TowerActor
from .isolation import Isolated, Watchdog, is_second_try
from .settings import DECODE_SECONDS, DECODED_ON, FETCH_SECONDS, PIXELS, Encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.images.decode import Decoded
    from iqa_core.storage.folder import Folder
    from iqa_core.tables.manifest import Manifest

    from .pool import Actors

__all__ = ["Workers", "dataset", "decode_rows", "read_rows"]

#: Reading is split among this many tasks at most.
_READ_TASKS = 1000
#: Pixel bytes in one block between decoding and the tower.
_BLOCK_BYTES = 64 * 1024 * 1024
#: Encoded bytes in one block between reading and decoding, by the manifest's average.
_ENCODED_BYTES = 128 * 1024 * 1024
#: Decode workers are replaced after so many tasks, as C decoders may leak.
_TASKS_PER_WORKER = 2000


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
        yield from read_slice(
            folder,
            RowGroupSlice(**row),
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
    node = this_node()[1]
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
            if encoding.views and row[PIXELS] is not None:
                _add_views(row, encoding, f"{files[position]}:{numbers[position]}")
            row[FETCH_SECONDS] = got - began
            row[DECODE_SECONDS] = time.perf_counter() - got
            row[DECODED_ON] = node
            rows.append(row)
            size += len(row[PIXELS] or b"")
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
        return {"status": error.status.value, "error": error.message, PIXELS: None}
    except Exception as error:  # a decoder may raise anything; the row must go on
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"status": Status.DECODE_ERROR.value, "error": reason, PIXELS: None}
    return {
        "status": Status.OK.value,
        WIDTH: image.width,
        HEIGHT: image.height,
        PIXELS: image.pixels.tobytes(),
    }


def _add_views(row: dict[str, Any], encoding: Encoding, key: str) -> None:
    """Append the pixels of degraded copies to a row's pixels."""
    height, width = encoding.preprocess.size if encoding.preprocess else (row[HEIGHT], row[WIDTH])
    image = np.frombuffer(row[PIXELS], np.uint8).reshape(height, width, 3)
    views, row[VIEW_LEVELS] = degraded_views(image, encoding.views, key)
    row[PIXELS] = b"".join([row[PIXELS], *(view.tobytes() for view in views)])


_DECODED = pa.schema(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (PIXELS, pa.large_binary()),
        (VIEW_LEVELS, pa.list_(pa.int8())),
        (FETCH_SECONDS, pa.float32()),
        (DECODE_SECONDS, pa.float32()),
        (DECODED_ON, pa.string()),
    ]
)


def _append(table: pa.Table, rows: list[dict[str, Any]]) -> pa.Table:
    added = pa.Table.from_pylist(rows, schema=_DECODED)
    for name in added.column_names:
        table = table.append_column(name, added.column(name))
    return table


@dataclass(frozen=True)
class Workers:
    """What encodes and scores.

    Attributes:
        tower: The pickled reference of the image tower.
        encoding: How rows become features and scores.
        actors: The pool of scoring actors.
        losses: Handle of the :class:`DeviceLosses` of the run.
    """

    tower: bytes
    encoding: Encoding
    actors: Actors
    losses: Any

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What :class:`TowerActor` takes."""
        return self.tower, self.encoding, self.actors, self.losses


def quiet_ray_data() -> None:
    """Leave the terminal to our own lines; Ray Data's log files keep its words."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, SessionFileHandler):
            handler.setLevel(logging.CRITICAL + 1)


def dataset(
    manifest: Manifest,
    keep: Sequence[str],
    units: Sequence[RowGroupSlice],
    rows: int,
    workers: Workers,
    *,
    skip_damaged: bool = False,
) -> ray.data.Dataset:
    """Return the chain from units of work to scored rows; nothing runs before it is consumed.

    Args:
        manifest: What is read.
        keep: Its columns to carry along.
        units: What is still to do.
        rows: Rows of these units.
        workers: What encodes and scores.
        skip_damaged: Give rows whose data in the manifest are damaged a status, and go on.
    """
    quiet_ray_data()
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = -1  # a cluster may take its time to grow
    context.raise_original_map_exception = True  # else only the text of an error comes back
    encoding, actors = workers.encoding, workers.actors
    cpus = int(ray.cluster_resources().get("CPU", 1))
    # Enough blocks for every CPU, yet each some seconds of work.
    block_rows = min(max(rows // (4 * max(1, cpus)), encoding.batch_size), 4 * encoding.batch_size)
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
            fn_constructor_args=workers.arguments,
            batch_format="pyarrow",
            batch_size=_rows_per_call(encoding, block_rows),
            compute=_pool(actors, -(-rows // block_rows)),
            label_selector=actors.label_selector,
            # Ray Data warns of both being given; one CPU is its default, also beside a GPU.
            num_cpus=None if actors.cpus == 1 else actors.cpus,
            num_gpus=actors.gpus or None,
        )
    )


def _rows_per_call(encoding: Encoding, block_rows: int) -> int:
    """Return the rows that an actor gets at once: Ray Data wants a number where there are GPUs."""
    each = encoding.image_bytes()
    if each is None:  # of any size: no more at once than one forward pass takes
        return min(encoding.batch_size, block_rows)
    return max(1, min(block_rows, _BLOCK_BYTES // each))


def _pool(actors: Actors, blocks: int) -> ray.data.ActorPoolStrategy:
    """Return a pool that asks for all of its GPUs at once, so that a cluster grows at once.

    On CPUs it grows as there is room: reading and other jobs need CPUs too.
    """
    if actors.most is None:
        return ray.data.ActorPoolStrategy(min_size=1)
    first = max(1, min(actors.most, blocks)) if actors.gpus else 1
    return ray.data.ActorPoolStrategy(min_size=1, max_size=actors.most, initial_size=first)
