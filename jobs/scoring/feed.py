"""Takes scored blocks from Ray Data in a thread, so that the driver can commit and stop in time."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from .stalls import is_stall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa
    import ray.data

__all__ = ["BlockFeed", "ExecutionError", "blocks_of"]

#: Seconds that a stopped run waits for Ray to end its execution; finished rows are safe by then.
_CLOSE_SECONDS = 10.0
#: Seconds that it waits for the next block before it ends the execution itself.
_NEXT_BLOCK_SECONDS = 1.0
#: Seconds between two looks for an execution to end.
_LOOK_SECONDS = 0.25


class ExecutionError(Exception):
    """Ray Data's execution failed; the cause is what it raised."""


def blocks_of(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Yield the blocks of a data set as they are finished.

    It does what ``iter_batches`` does with blocks as they are, with less of the driver's time.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        yield from ray.get(list(bundle.block_refs))


def _executors() -> list[StreamingExecutor]:
    return [thread for thread in threading.enumerate() if isinstance(thread, StreamingExecutor)]


class BlockFeed:
    """The blocks of a data set, taken in a thread (a context manager).

    Args:
        blocks: As of :func:`blocks_of`; the execution begins on entry.
    """

    END = object()

    def __init__(self, blocks: Iterable[pa.Table]) -> None:
        self._blocks: queue.Queue[Any] = queue.Queue(maxsize=64)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._pump, args=(blocks,), daemon=True)
        self._actors: list[
            Any
        ] = []  # that ran when nothing came; held no longer, or none would end

    def _pump(self, blocks: Iterable[pa.Table]) -> None:
        try:
            for table in blocks:
                if not self._put(table):
                    return
            self._put(self.END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:  # noqa: ANN401 - a table, the end, or an error
        while not self._closed.is_set():
            try:
                self._blocks.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False

    @property
    def has_actors(self) -> bool:
        """Whether the execution had actors when nothing came last."""
        return bool(self._actors)

    @property
    def queued(self) -> int:
        """Number of blocks that wait to be taken."""
        return self._blocks.qsize()

    def next(self, timeout: float) -> Any:  # noqa: ANN401
        """Return the next table, ``END``, or None if none came within ``timeout`` seconds.

        Actors of an execution that stood still are killed: what hangs would keep its GPU.

        Raises:
            ExecutionError: If the execution failed.
        """
        try:
            item = self._blocks.get(timeout=timeout)
        except queue.Empty:
            self._note_actors()
            return None
        actors, self._actors = self._actors, []
        if isinstance(item, Exception):
            for actor in actors if is_stall(item) else ():
                ray.kill(actor)
            raise ExecutionError(str(item)) from item
        if isinstance(item, BaseException):
            raise item
        return item

    def _note_actors(self) -> None:
        """Note the actors of the execution.

        Those noted last stay where there are none: Ray Data forgets them before it says that it failed.
        """
        for executor in _executors():
            if not executor._shutdown:
                pools = [getattr(stage, "_actor_pool", None) for stage in executor._topology or ()]
                actors = [actor for pool in pools if pool for actor in pool._running_actors]
                self._actors = actors or self._actors

    def __enter__(self) -> BlockFeed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End Ray's execution: a thread of it that outlives `ray.shutdown` crashes the process."""
        self._closed.set()
        last = time.monotonic() + _CLOSE_SECONDS
        self._thread.join(timeout=_NEXT_BLOCK_SECONDS)  # it ends at the next block
        while self._thread.is_alive() and time.monotonic() < last:
            # No block comes: Ray waits for resources, works on a long one, or only begins.
            for executor in _executors():
                executor.shutdown(force=False)
            self._thread.join(timeout=_LOOK_SECONDS)
