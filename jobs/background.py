"""Work in a thread beside the main one, such as imports and loading while Ray's processes start."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background"]

T = TypeVar("T")

#: Seconds for the function to end by itself where its result is not awaited.
_PATIENCE = 1.0


class Background(Generic[T]):
    """Calls a function in a thread; use it in a ``with`` block.

    The function can't be interrupted. Where the block is left early, by an error or Ctrl-C, it goes on, but
    does not keep the process alive.

    Args:
        work: The function.
        patience: Seconds to wait for its end where the block is left early.
    """

    def __init__(self, work: Callable[[], T], patience: float = _PATIENCE) -> None:
        self._work = work
        self._patience = patience
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name="iqa-background", daemon=True)

    def _run(self) -> None:
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> T:
        """Wait for the function's result.

        Raises:
            Exception: What the function raised.
        """
        return self._future.result()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        try:
            self._thread.join(self._patience)
        finally:
            if self._thread.is_alive():
                atexit.register(_end_process, self._thread, _status(error))


def _status(error: BaseException | None) -> int:
    """Return the exit status of a command that an error ends."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit) and error.code == signal.SIGTERM:  # as Ray's handler raises it
        return 128 + signal.SIGTERM
    return 1


def _end_process(thread: threading.Thread, status: int) -> None:
    """End the process at once if a thread still runs.

    The interpreter would abort with a message where it ends a thread within C++, such as torch's import.
    """
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
