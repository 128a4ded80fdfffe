"""Hostile files: a C decoder may crash or hang on one, which must not end the job.

Images are decoded in the Ray worker itself, which is fastest. If the worker dies, or a watchdog ends it
because one image takes too long, Ray retries the task; in the retry each image is decoded in a child
process, so that only the image that crashes or hangs becomes a row with an error.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from iqa_core.errors import ImageError, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

__all__ = ["Isolated", "Watchdog", "attempt"]

T = TypeVar("T")


def attempt() -> int:
    """Return how often the present task was tried before, by workers that died; 0 outside of Ray."""
    worker: Any = ray._private.worker.global_worker  # not in the public context
    return int(worker.core_worker.get_current_task_attempt_number()) if worker.connected else 0


class Watchdog:
    """Ends this process if one step takes too long: nothing else stops C code that hangs.

    Args:
        seconds: Limit on a step.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = float("inf")
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() > self._deadline:
                os._exit(70)

    def call(self, function: Callable[[bytes], T], data: bytes) -> T:
        """Return ``function(data)``, or end the process at the time limit."""
        self._deadline = time.monotonic() + self._seconds
        try:
            return function(data)
        finally:
            self._deadline = float("inf")

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()


class Isolated:
    """Calls a function in a child process; if it dies or hangs, the next call starts a new one.

    Args:
        function: Takes bytes; anything that cloudpickle takes.
        seconds: Limit on a call.
    """

    def __init__(self, function: Callable[[bytes], T], seconds: float) -> None:
        self._function = ray.cloudpickle.dumps(function)
        self._seconds = seconds
        self._context = multiprocessing.get_context("spawn")
        self._child: Any = None
        self._pipe: Any = None

    def call(self, function: Callable[[bytes], T], data: bytes) -> T:
        """Return the function's result for some data.

        Raises:
            ImageError: If the child died or took too long.
            Exception: Whatever the function raised.
        """
        if self._child is None:
            self._start()
        try:
            self._pipe.send_bytes(data)
            if not self._pipe.poll(self._seconds):
                self.close()
                raise ImageError(
                    Status.DECODE_ERROR, f"decoding took more than {self._seconds:g} s: given up"
                )
            succeeded, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._child.join(timeout=5)
            code = self._child.exitcode
            self.close()
            raise ImageError(
                Status.DECODE_ERROR, f"the decoder crashed on this file (exit code {code})"
            ) from error
        if succeeded:
            result: T = value
            return result
        raise value

    def _start(self) -> None:
        self._pipe, child_end = self._context.Pipe()
        self._child = self._context.Process(
            target=_serve, args=(child_end, self._function), daemon=True
        )
        self._child.start()
        child_end.close()
        self._pipe.recv()  # ready: imports do not count as decoding

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.join()
            self._pipe.close()
        self._child = self._pipe = None


def _serve(pipe: Connection, pickled: bytes) -> None:
    function = ray.cloudpickle.loads(pickled)
    pipe.send("ready")
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        try:
            answer = (True, function(data))
        except Exception as error:  # raised again in the parent
            answer = (False, error)
        pipe.send(answer)
