"""Storage that ends a driver at any of its operations, as SIGKILL or a power failure does.

Nothing here is random: time passes only when a driver sleeps, and a heartbeat is written before anything
else happens. So the operations of a run can be numbered, and each number is a point at which the run ends.

On a disk, what is not synced when a driver ends is lost: such a file is empty, also under its final name.
A store has what S3 has: one PUT is there whole or not at all, and there are no folders and no renames.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING

from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from iqa_core.storage import folder, lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Operations that change what is stored, by the names that :class:`Driver` keeps.
CHANGES = {"create", "write", "replace", "unlink", "put", "remove"}
_STUCK = 120.0


class Ended(BaseException):
    """The driver's process has ended; nothing of it may catch this."""


@dataclass
class Driver:
    """One driver process.

    Attributes:
        name: Its machine.
        end_before: Number of the operation before which it ends; None never.
        end_after: Number of the operation after which it ends.
        end_within: Number of the write of which only half is written.
        pause_before: Number of the operation before which others do something.
        on_pause: What they do.
        is_suspended_then: Whether it is suspended meanwhile, without heartbeats.
        operations: The operations so far.
        acknowledged: Numbers of the rows whose write has returned.
    """

    name: str
    end_before: int | None = None
    end_after: int | None = None
    end_within: int | None = None
    pause_before: int | None = None
    on_pause: Callable[[], object] = lambda: None
    is_suspended_then: bool = False
    operations: list[str] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    has_ended: bool = False
    is_suspended: bool = False


@dataclass
class _Wait:
    driver: Driver
    deadline: float
    is_over: threading.Event = field(default_factory=threading.Event)


class World:
    """Machines with one store, or one shared disk, and one time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.objects: dict[str, object] = {}
        self._drivers: list[Driver] = []  # the last one runs; those before it are suspended or idle
        self._of_thread: dict[threading.Thread, Driver] = {}
        self._heartbeats: dict[threading.Thread, Driver] = {}
        self._waits: dict[threading.Thread, _Wait] = {}
        self._unsynced: set[str] = set()
        self._lock = threading.RLock()

    @contextmanager
    def running(self, driver: Driver) -> Iterator[None]:
        """Let a driver run in this thread."""
        self._drivers.append(driver)
        thread = threading.current_thread()
        suspended = self._of_thread.get(thread)  # in a heartbeat
        if suspended:
            self._of_thread[thread] = driver
        try:
            yield
        finally:
            self._drivers.remove(driver)
            if suspended:
                self._of_thread[thread] = suspended

    def driver(self) -> Driver:
        """Return the driver whose code runs in this thread."""
        return self._of_thread.get(threading.current_thread()) or self._drivers[-1]

    @contextmanager
    def operation(self, name: str) -> Iterator[int]:
        """Count an operation; the driver may end before or after it.

        Yields:
            Its number.
        """
        self.settle()
        driver = self.driver()
        while driver.is_suspended:  # by the operation of another thread
            time.sleep(0.0005)
        with self._lock:
            if driver.has_ended:
                raise Ended
            number = len(driver.operations)
            driver.operations.append(name)
        if number == driver.end_before:
            self.end(driver)
        if number == driver.pause_before:
            driver.is_suspended = driver.is_suspended_then
            try:
                driver.on_pause()
            finally:  # what fails there must not leave this driver's other threads waiting
                driver.is_suspended = False
        yield number
        if number == driver.end_after:
            self.end(driver)

    def end(self, driver: Driver) -> None:
        """End a driver; what it has not synced is lost."""
        driver.has_ended = True
        for path in self._unsynced:
            with suppress(FileNotFoundError):
                os.truncate(path, 0)
        self._unsynced.clear()
        raise Ended

    def settle(self) -> None:
        """Return once all heartbeats that are due are written."""
        thread = threading.current_thread()
        if thread in self._heartbeats and self.driver() is self._heartbeats[thread]:
            return
        deadline = time.monotonic() + _STUCK
        while any(self._is_busy(thread) for thread in threading.enumerate()):
            assert time.monotonic() < deadline, "a heartbeat is stuck"
            time.sleep(0.0002)

    def _is_busy(self, thread: threading.Thread) -> bool:
        if "_keep_beating" not in thread.name or thread in self._waits:
            return False
        driver = self._heartbeats.get(thread)
        return driver is None or not driver.is_suspended

    def sleep(self, seconds: float) -> None:
        """Let time pass; heartbeats of those that are not suspended are written meanwhile."""
        end = self.now + seconds
        while True:
            due = [
                (wait.deadline, thread)
                for thread, wait in self._waits.items()
                if not wait.driver.is_suspended and wait.deadline <= end
            ]
            if not due:
                break
            moment, thread = min(due, key=itemgetter(0))
            self.now = max(self.now, moment)
            self._waits.pop(thread).is_over.set()
            self.settle()
        self.now = end

    def wait(self, driver: Driver, event: threading.Event, seconds: float) -> bool:
        """Wait in the thread of a driver's heartbeats."""
        thread = threading.current_thread()
        self._of_thread[thread] = self._heartbeats[thread] = driver
        if seconds > 0:
            wait = self._waits[thread] = _Wait(driver, self.now + seconds)
            while not (event.is_set() or wait.is_over.wait(0.0005)):
                pass
            if event.is_set():
                self._waits.pop(thread, None)
        return event.is_set()


def install(world: World, root: Path, monkeypatch) -> None:
    """Use a world's storage for paths below a folder and for ``crash://``, and its time for leases."""
    opened = folder.open_filesystem

    def open_filesystem(uri):
        if uri.startswith("crash://"):
            return Store(world, skip_instance_cache=True), uri.removeprefix("crash:/")
        if uri.startswith(str(root)):
            return Disk(world, skip_instance_cache=True), uri
        return opened(uri)

    class DriverClock(lease.Clock):
        def __init__(self) -> None:
            self.driver = world.driver()

        def now(self) -> float:
            return world.now

        def sleep(self, seconds: float) -> None:
            world.sleep(seconds)

        def wait(self, event: threading.Event, seconds: float) -> bool:
            return world.wait(self.driver, event, seconds)

    class DiskPath(PosixPath):
        """A path whose changes are operations."""

        def open(self, mode="r", *args, **kwargs):
            if mode != "wb" or root not in self.parents:
                return super().open(mode, *args, **kwargs)
            with ExitStack() as stack:
                with world.operation("create"):
                    file = stack.enter_context(super().open("wb"))
                stack.pop_all()
            return _File(world, file, str(self))

        def replace(self, target):
            with world.operation("replace"):
                replaced = super().replace(target)
                if str(self) in world._unsynced:
                    world._unsynced ^= {str(self), str(target)}
                os.utime(target, (world.now, world.now))
                return replaced

        def unlink(self, missing_ok=False):
            if missing_ok and not self.exists():  # as after each write
                return
            with world.operation("unlink"):
                super().unlink(missing_ok)

    monkeypatch.setattr(folder, "open_filesystem", open_filesystem)
    monkeypatch.setattr(folder, "Path", DiskPath)
    monkeypatch.setattr(folder, "_sync_folder", lambda path: None)
    monkeypatch.setattr(
        folder.os, "fsync", lambda handle: world._unsynced.discard(_name_of(handle))
    )
    monkeypatch.setattr(lease, "Clock", DriverClock)
    monkeypatch.setattr(lease, "_this_place", lambda: world.driver().name)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # of heartbeats that end


def _name_of(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")


class _File:
    """A file that is written; what is written is lost unless it is synced."""

    def __init__(self, world, file, path):
        self._world, self._file, self._path = world, file, path

    def write(self, data):
        with self._world.operation("write") as number:
            self._world._unsynced.add(self._path)
            if number == self._world.driver().end_within:
                self._file.write(data[: len(data) // 2])
                self._file.flush()
                self._world._unsynced.discard(self._path)  # half of it has reached the disk
                self._world.end(self._world.driver())
            self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


class _Reads:
    """Reading operations, the same on each filesystem."""

    def glob(self, *args, **kwargs):
        with self.world.operation("list"):
            return super().glob(*args, **kwargs)

    def exists(self, *args, **kwargs):
        with self.world.operation("exists"):
            return super().exists(*args, **kwargs)

    def cat_file(self, *args, **kwargs):
        with self.world.operation("read"):
            return super().cat_file(*args, **kwargs)

    def modified(self, *args, **kwargs):
        with self.world.operation("modified"):
            return super().modified(*args, **kwargs)

    def open(self, *args, **kwargs):
        with self.world.operation("open"):
            return super().open(*args, **kwargs)

    def rm_file(self, *args, **kwargs):
        with self.world.operation("remove"):
            super().rm_file(*args, **kwargs)


class Disk(_Reads, LocalFileSystem):
    """A disk; its writes are those of :class:`iqa_core.storage.folder.Folder`, by paths."""

    cachable = False

    def __init__(self, world, **kwargs):
        super().__init__(**kwargs)
        self.world = world


class Store(_Reads, MemoryFileSystem):
    """An object store."""

    protocol = "crash"
    cachable = False

    def __init__(self, world, **kwargs):
        super().__init__(**kwargs)
        self.world = world
        self.store = world.objects
        self.pseudo_dirs = [""]

    def pipe_file(self, path, value, *args, **kwargs):
        with self.world.operation("put"):
            super().pipe_file(path, value)
            moment = datetime.fromtimestamp(self.world.now, UTC)
            self.store[self._strip_protocol(path)].modified = moment
