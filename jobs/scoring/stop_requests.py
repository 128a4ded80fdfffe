"""Signals that ask a run to stop: SIGTERM (job stop, spot notice) and SIGINT."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["stop_requests"]


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event; a second signal acts at once.

    Enter it after ``ray.init``, which installs handlers of its own.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def request(number: int, _: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.set()
        # Standard error may be a pipe to a process that the same Ctrl-C has ended, or be in use just now.
        with suppress(OSError, RuntimeError):
            print("stopping: writing what is finished", file=sys.stderr, flush=True)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
