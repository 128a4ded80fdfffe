"""Progress of a training on standard error, from the file that the first worker writes."""

from __future__ import annotations

import _thread
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


@contextmanager
def show_progress(
    folder: Folder,
    steps: int,
    waiting: Callable[[], Waiting | None],
    wait_minutes: float | None = None,
) -> Iterator[None]:
    """Print each new check on standard error, or what the workers wait for (in the main thread).

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

    def follow() -> None:
        nonlocal overdue
        while not stopped.wait(_SECONDS):
            show()
            if printed >= 0:
                continue
            needs = waiting()
            waited = progress.wait_for(needs)
            if needs is not None and wait_minutes is not None and waited >= 60 * wait_minutes:
                overdue = needs
                # Ray Train has no other end than that of Ctrl-C, and only a third one ends a wait at once.
                for _ in range(3):
                    _thread.interrupt_main()
                    if stopped.wait(1.0):  # it has ended: a further one would hit what comes after
                        break
                return

    thread = threading.Thread(target=follow, daemon=True)
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
        thread.join()
        show()


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
