"""Progress of a training on standard error, from the file that the first worker writes."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
    folder: Folder, steps: int, waiting: Callable[[], Waiting | None]
) -> Iterator[None]:
    """Print each new check on standard error, or what the workers wait for.

    Args:
        folder: The run folder.
        steps: Number of steps.
        waiting: Returns what the workers wait for; None if for nothing.
    """
    stopped = threading.Event()
    printed = -1
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
        while not stopped.wait(_SECONDS):
            show()
            if printed < 0:
                progress.wait_for(waiting())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        show()


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
