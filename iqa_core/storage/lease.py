"""One driver at a time on an output, or on rows of it: a lease with heartbeats, on any filesystem.

Each driver writes a file of its own, then lists the others' files. Of two drivers that start at once,
each sees the other, because each writes before it lists: so at most one continues. Ages are differences
of the store's own times, so clocks of machines need not agree.

A lease states its claim (:mod:`iqa_core.storage.claim`): drivers whose claims do not conflict hold leases
side by side.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError
from iqa_core.storage.claim import Claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.storage.folder import Folder

__all__ = ["Clock", "LeaseLostError", "OutputLease", "is_dead_here"]

log = logging.getLogger(__name__)

_PATTERN = "_run/lease-*.json"
_ATTEMPTS = 4
_READERS = 32


class LeaseLostError(InputError):
    """Another driver may have taken over, because this driver's heartbeats did not get through."""


def _this_place() -> str:
    """Return an id of this PID namespace (host, boot id, container)."""
    parts = [platform.node()]
    with suppress(OSError):  # Linux has both
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def is_dead_here(lease: Mapping[str, Any]) -> bool:
    """Return whether the process of a lease ran on this machine, and is gone.

    Args:
        lease: The document of a lease.
    """
    process = lease.get("process")
    return lease.get("place") == _this_place() and isinstance(process, int) and not _runs(process)


class Clock:
    """The clock of this machine, and waiting."""

    def now(self) -> float:
        """Return seconds on a clock that also runs while the machine is suspended, if there is one."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if clock is None else time.clock_gettime(clock)

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Return True once an event is set, False if it is not set after some seconds."""
        return event.wait(seconds)


class OutputLease:
    """Holds an output, or rows of it, while a run writes to it; use it in a ``with`` statement.

    Args:
        folder: The output.
        seconds: A lease without a heartbeat for this long is void; a takeover after a crash waits no
            longer.
        clock: The clock; a test may pass its own.
        claim: The rows that the run may write; by default all.

    Raises:
        InputError: On entering, if another driver with a conflicting claim is alive, or the folder can't
            be written.
    """

    def __init__(
        self,
        folder: Folder,
        seconds: float = 30.0,
        *,
        clock: Clock | None = None,
        claim: Claim | None = None,
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._id = uuid.uuid4().hex
        self._name = f"_run/lease-{self._id}.json"
        self._clock = clock or Clock()
        self._claim = claim or Claim()
        self._since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._stopped = threading.Event()
        self._last_beat = 0.0
        self._lost = False
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> OutputLease:
        other: dict[str, Any] = {}
        for attempt in range(_ATTEMPTS):
            self._beat()
            try:
                found = self._alive()
            except BaseException:
                self._let_go()
                raise
            if found is None:
                self._thread.start()
                return self
            other = found
            self._folder.remove(self._name)
            if not other.get("candidate") or attempt == _ATTEMPTS - 1:
                break
            # Two that started at the same time retry at different times.
            self._clock.sleep(random.uniform(0.2, 1.5))  # noqa: S311
        raise InputError(self._refusal(other))

    def _refusal(self, other: dict[str, Any]) -> str:
        """Return why another driver's lease keeps this one out."""
        claim = Claim.of(other.get("claim"))
        written = f"{claim.name} of --output" if claim.name else "--output"
        line = (
            f"{written} {self._folder.uri} is being written by process {other.get('process')} on "
            f"{other.get('host')} since {other.get('since')}"
        )
        if not self._claim.overlaps(claim):
            return f"{line} with other options or versions, and the two don't mix: give another --output"
        own = f", whose rows overlap with those of {self._claim.name}" if self._claim.name else ""
        return (
            f"{line}{own}: wait for it, or stop it; if it is gone, its lease ends {self._seconds:g} s "
            "after its last heartbeat"
        )

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._let_go()

    def _let_go(self) -> None:
        with suppress(OSError):  # it runs out by itself
            self._folder.remove(self._name)

    def check(self) -> None:
        """Make sure that the lease still holds; called before each commit.

        Raises:
            LeaseLostError: If no heartbeat got through for the lease's time, as after a suspension.
        """
        if not self._holds():
            raise LeaseLostError(
                f"the lease on --output {self._folder.uri} is lost ({self._seconds:g} s without a "
                "heartbeat, or its file in _run/ is gone), and another run may have taken over: nothing "
                "more was written; the same command resumes"
            )

    def _holds(self) -> bool:
        if self._clock.now() - self._last_beat > self._seconds:
            self._lost = True  # permanently: another run may have taken over and finished
        return not self._lost and self._folder.exists(self._name)

    def _beat(self, *, candidate: bool = True) -> None:
        began = self._clock.now()
        document = {
            "host": platform.node(),
            "place": _this_place(),
            "process": os.getpid(),
            "since": self._since,
            "seconds": self._seconds,
            "candidate": candidate,
            "claim": asdict(self._claim),
        }
        try:
            self._folder.write(self._name, json.dumps(document).encode())
        except OSError as error:
            raise InputError(
                f"--output {self._folder.uri} can't be written ({error}): check path and permissions"
            ) from error
        self._last_beat = began

    def _keep_beating(self) -> None:
        wait = 0.0
        while not self._clock.wait(self._stopped, wait):
            wait = self._seconds / 4
            # A failure of the store may pass; `check` notices if it lasts.
            with suppress(InputError, OSError):
                if self._holds():  # otherwise another run has removed it
                    self._beat(candidate=False)

    def _alive(self) -> dict[str, Any] | None:
        """Return another driver's conflicting lease that holds, after removing those that do not."""
        names = [name for name in self._folder.list(_PATTERN) if name != self._name]
        if not names:
            return None
        with ThreadPoolExecutor(min(_READERS, len(names))) as pool:
            conflicting = list(pool.map(self._conflicts, names))
        for name, conflicts in zip(names, conflicting, strict=True):
            if conflicts and (lease := self._wait_for(name)) is not None:
                return lease
        return None

    def _conflicts(self, name: str) -> bool:
        try:
            found = self._folder.read_json(name)
        except FileNotFoundError:
            return False
        except ValueError:  # half written
            return True
        return self._claim.conflicts(
            Claim.of(found.get("claim") if isinstance(found, dict) else None)
        )

    def _wait_for(self, name: str) -> dict[str, Any] | None:
        """Watch a lease until it shows a heartbeat (return it) or has run out (remove it)."""
        lease = first = self._read(name)
        while first is not None and lease is not None:
            here = lease["place"] == _this_place()
            if here and not _runs(lease["process"]):
                break
            if lease["modified"] != first["modified"]:
                return lease
            self._beat()  # its time, by the same store's clock, is now
            age = self._folder.modified(self._name) - lease["modified"]
            if age.total_seconds() > lease["seconds"]:
                break
            if here:  # a process without heartbeats for longer has reused the process id
                return lease
            if lease is first:
                log.warning(
                    "waiting to see whether process %s on %s is alive",
                    lease["process"],
                    lease["host"],
                )
            self._clock.sleep(min(1.0, self._seconds / 8))
            lease = self._read(name)
        self._folder.remove(name)
        return None

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a lease; one that can't be parsed may be half written, and counts."""
        lease = {"place": "", "process": "?", "host": "?", "since": "?", "seconds": self._seconds}
        try:
            found = self._folder.read_json(name)
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if isinstance(found, dict):
            lease |= found
        try:
            return lease | {"modified": self._folder.modified(name)}
        except FileNotFoundError:
            return None
