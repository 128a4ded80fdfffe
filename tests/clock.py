"""A clock and a folder whose times tests decide: what takes seconds in a run takes none here."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

#: Real seconds after which a thread that should have moved on counts as stuck.
_STUCK = 30.0


class FakeClock(Clock):
    """Time that passes when a test says so, or when the code under test sleeps.

    Attributes:
        slept: Seconds of each sleep.
        on_sleep: Called after each sleep, such as to do what another driver does meanwhile.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.on_sleep: Callable[[], object] = lambda: None
        self._now = 1_000_000.0
        self._changed = threading.Condition()
        self._deadlines: dict[int, float] = {}  # of threads that wait
        self._busy: set[int] = set()  # threads whose wait has ended, and that have not come back

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        self.on_sleep()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        thread = threading.get_ident()
        with self._changed:
            self._busy.discard(thread)
            self._deadlines[thread] = self._now + seconds
            self._changed.notify_all()
            while not event.is_set() and self._now < self._deadlines[thread]:
                self._changed.wait(0.002)  # an event notifies nobody here
            del self._deadlines[thread]
            if not event.is_set():
                self._busy.add(thread)
            self._changed.notify_all()
        return event.is_set()

    def jump(self, seconds: float) -> None:
        """Let time pass without a chance for threads to act in it, as a suspension does."""
        with self._changed:
            self._now += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass; threads that wait act at their time."""
        with self._changed:
            end = self._now + seconds
            while (due := min(self._deadlines.values(), default=end)) < end:
                self._now = max(self._now, due)
                self._settle()
            self._now = end
            self._settle()

    def _settle(self) -> None:
        """Let threads whose time has come act, until they wait again."""
        self._changed.notify_all()

        def is_settled() -> bool:
            return not self._busy and all(due > self._now for due in self._deadlines.values())

        assert self._changed.wait_for(is_settled, _STUCK), "a thread is stuck"

    def wait_for_threads(self, count: int) -> None:
        """Return once some threads wait for time to pass."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: len(self._deadlines) == count and not self._busy, _STUCK
            )
        assert found, f"{len(self._deadlines)} threads wait"


@dataclass(frozen=True)
class TimedFolder(Folder):
    """A folder whose files are written at the clock's time."""

    clock: FakeClock = field(default_factory=FakeClock)

    @classmethod
    def at(cls, uri: str, clock: FakeClock) -> TimedFolder:
        plain = Folder.of(uri)
        return cls(plain.uri, plain.fs, plain.root, clock=clock)

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data)
        now, path = self.clock.now(), self.path(name)
        if self.is_local:
            os.utime(path, (now, now))
        else:
            self.fs.store[path].modified = datetime.fromtimestamp(now, UTC)


@contextmanager
def doing(clock: FakeClock, action: Callable[[], object]):
    """Do something whenever the code under test sleeps."""
    before, clock.on_sleep = clock.on_sleep, action
    try:
        yield
    finally:
        clock.on_sleep = before
