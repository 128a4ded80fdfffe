"""Progress of a training on standard error, from the file that the first worker writes."""

from __future__ import annotations

import _thread
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from iqa_core.errors import InputError

from ..progress import Progress
from .run_folder import PROGRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.storage.folder import Folder

    from ..progress import Waiting

__all__ = ["show_progress"]

_SECONDS = 5.0
_SECONDS_TO_END = 1.0


@contextmanager
def show_progress(
    folder: Folder,
    steps: int,
    waiting: Callable[[], Waiting | None],
    wait_minutes: float | None = None,
) -> Iterator[None]:
    """Print each new check on standard error, or what the workers wait for (in the main thread).

    One Ctrl-C ends a wait, for which Ray Train would want three.

    Args:
        folder: The run folder.
        steps: Number of steps.
        waiting: Returns what the workers wait for; None if for nothing.
        wait_minutes: Minutes after which the wait ends; None waits for as long as it takes.

    Raises:
        InputError: If they wait for longer than that.
    """
    stopped = threading.Event()
    printed = -1
    overdue: Waiting | None = None
    progress = Progress(steps)

    def show() -> None:
        nonlocal printed
        try:
            record = folder.read_json(PROGRESS)
        except (OSError, ValueError):
            return
        if record["step"] > printed:
            printed = record["step"]
            loss, reached = (_number(record[key]) for key in ("loss", "agreement"))
            print(
                f"step {printed:,} of {steps:,}, loss {loss}, held-out agreement {reached}",
                file=sys.stderr,
                flush=True,
            )

    def follow(interrupted: Callable[[float], bool]) -> None:
        nonlocal overdue
        was_interrupted = False
        while not stopped.is_set():
            was_interrupted |= interrupted(_SECONDS_TO_END if was_interrupted else _SECONDS)
            if stopped.is_set():
                return
            show()
            needs = waiting()
            waited = progress.wait_for(needs)
            is_over = wait_minutes is not None and waited >= 60 * wait_minutes
            if needs is None or not (was_interrupted or is_over):
                continue
            if not was_interrupted:
                overdue = needs
            # Ray Train has no other end than that of Ctrl-C, and only a third one ends a wait at once. One
            # that comes before Ray Train handles it may be lost: an exception has no effect everywhere.
            while not stopped.is_set():
                _thread.interrupt_main()
                stopped.wait(_SECONDS_TO_END)

    with _interrupts() as (interrupted, wake):
        thread = threading.Thread(target=follow, args=[interrupted], daemon=True)
        thread.start()
        try:
            yield
        except KeyboardInterrupt:
            if overdue is None:
                raise
            raise InputError(
                f"--wait-minutes {wait_minutes:g} is over, and the training still waits for {overdue.what} "
                f"({overdue.why}); the same command resumes"
            ) from None
        finally:
            stopped.set()
            wake()
            thread.join()
            show()


@contextmanager
def _interrupts() -> Iterator[tuple[Callable[[float], bool], Callable[[], object]]]:
    """Yield two functions: one waits so many seconds for Ctrl-C and returns whether it came; one wakes it.

    Whatever handles the signal, Python also writes its number to a file that a program may name.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def interrupted(seconds: float) -> bool:
        reader.settimeout(seconds)
        try:
            return signal.SIGINT in reader.recv(64)
        except TimeoutError:
            return False

    with reader, writer:
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield interrupted, lambda: writer.send(b"\0")
        finally:
            signal.set_wakeup_fd(before)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
