"""Work in a thread beside the main one, such as imports and loading while Ray's processes start."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background"]

T = TypeVar("T")

#: Torch must not be half imported when the interpreter ends, and a download must not delay the end.
_PATIENCE = 5.0


class Background(Generic[T]):
    """Calls a function in a thread; use it in a ``with`` block.

    Where the block is left early, by an error or Ctrl-C, the function is given some seconds to end. It
    can't be interrupted, but does not keep the process alive.

    Args:
        work: The function.
        patience: These seconds.
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

    def __exit__(self, *_: object) -> None:
        self._thread.join(self._patience)
