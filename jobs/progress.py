"""Progress lines for a terminal and for a job's log."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Progress", "Waiting", "duration"]

_TERMINAL_SECONDS = 0.5
_LOG_SECONDS = 15.0
_WAIT_SECONDS = 30.0
#: The rate that is shown is that of this long.
_RATE_SECONDS = 60.0
#: Least time between two moments that are kept for it.
_STEP_SECONDS = 1.0


def duration(seconds: float) -> str:
    """Return a length of time as ``4 s``, ``3:07 min`` or ``2:03 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Waiting(NamedTuple):
    """What a run waits for.

    Attributes:
        what: The thing, such as ``4 GPUs``.
        why: What is there instead.
    """

    what: str
    why: str


class Progress:
    """Prints progress on standard error: one line that is updated, or a line every 15 s in a log.

    The rate is the present one, that of the last minute; the time left follows from it.

    Args:
        total: Rows to do.
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.

    Attributes:
        waiting: What the run waits for; None if for nothing.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._statuses: dict[str, int] = {}
        self._is_terminal = sys.stderr.isatty()
        self._began = self._printed = clock()
        self._history: deque[tuple[float, int]] = deque()  # (moment, rows), the first ones included
        self._done_when_printed = -1
        self._waiting: tuple[float, float] | None = None  # when it began, and when it was printed
        self._workers = ""
        self.waiting: str | None = None

    def add(self, statuses: Mapping[str, int], workers: str = "") -> None:
        """Set the number of rows by status so far.

        Args:
            statuses: Rows by status.
            workers: What has scored them, as a message: ``8 actors on 3 nodes``.
        """
        self._statuses = dict(statuses)
        self._workers = workers
        self._waiting = self.waiting = None
        now = self._clock()
        if not self._history or now - self._history[-1][0] >= _STEP_SECONDS:
            self._history.append((now, self._done))
        # One moment before the window stays, and another, as rows may come less often than that.
        while len(self._history) > 2 and self._history[1][0] <= now - _RATE_SECONDS:
            self._history.popleft()

    @property
    def _done(self) -> int:
        return sum(self._statuses.values())

    def tick(self) -> None:
        """Print the line if it is due."""
        wait = _TERMINAL_SECONDS if self._is_terminal else _LOG_SECONDS
        if self._clock() - self._printed >= wait:
            self._print()

    def wait_for(self, waiting: Waiting | None) -> float:
        """Print every half minute what the run waits for, and since when; None stops that.

        Returns:
            Seconds since it began to wait.
        """
        now = self._clock()
        self.waiting = waiting and f"waiting for {waiting.what}: {waiting.why}"
        if waiting is None:
            self._waiting = None
            return 0.0
        since, printed = self._waiting or (now, -math.inf)
        if now - printed >= _WAIT_SECONDS:
            printed = now
            waited = f" since {duration(now - since)}" if now - since >= 1 else ""
            self.say(
                f"waiting for {waiting.what}{waited}: {waiting.why}; Ctrl-C or `ray job stop` ends the wait"
            )
        self._waiting = (since, printed)
        return now - since

    def say(self, line: str) -> None:
        """Print a separate line."""
        self._write(f"\r\x1b[K{line}\n" if self._is_terminal else f"{line}\n")
        self._printed = self._clock()

    def _write(self, text: str) -> None:
        # It may be a pipe to a process that has ended, and rows that are finished are still to be written.
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()

    def close(self) -> None:
        """Print the final line."""
        if self._done != self._done_when_printed:
            self._print()
        if self._is_terminal:
            self._write("\n")

    def _print(self) -> None:
        line = self.line(self._clock())
        self._write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
        self._printed = self._clock()
        self._done_when_printed = self._done

    def line(self, now: float) -> str:
        """Return the line for a moment of the clock."""
        done = self._done
        share = 100 * done / self._total if self._total else 100.0
        parts = [f"{done:,} of {self._total:,} rows ({share:.0f} %)"]
        rate, left = self.rate(now), self.seconds_left(now)
        if rate:
            parts.append(f"{rate:,.1f} rows/s")
            if left:
                parts.append(f"{duration(left)} left")
        elif not done:
            parts.append(f"starting, {duration(now - self._began)}")
        if self._workers:
            parts.append(self._workers)
        failed = {status: count for status, count in self._statuses.items() if status != "ok"}
        if failed:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(failed.items()))
            parts.append(f"{sum(failed.values()):,} not scored: {kinds}")
        return "; ".join(parts)

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds that the rest takes at the present rate; None if that is not known."""
        rate = self.rate(now)
        return (self._total - self._done) / rate if rate else None

    def rate(self, now: float) -> float:
        """Return the rows per second of the last minute, or since the first rows, without the start-up."""
        if not self._history:
            return 0.0
        since, done = self._history[0]
        for moment, rows in self._history:
            if moment > now - _RATE_SECONDS or rows == self._done:
                break
            since, done = moment, rows
        return (self._done - done) / (now - since) if now > since else 0.0
