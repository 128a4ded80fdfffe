"""The wait for nodes and for room on them: says what is missing, and ends after ``--wait-minutes``."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import ray

from iqa_core.errors import InputError

from ..node_types import find_autoscaler
from ..progress import Waiting
from .pool import waiting_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..progress import Progress
    from .pool import ActorPool

__all__ = ["Wait", "let_go"]

#: After this long without a block it is checked whether any node could hold an actor.
_SILENCE_SECONDS = 10.0
#: What an execution held that has ended is free again after this long.
_RELEASE_SECONDS = 15.0
_IN_USE = Waiting("room for a scoring actor", "other work on the cluster holds what it needs")


class Wait:
    """Watches an execution that yields nothing, and says so if no node could hold a scoring actor.

    Whether others hold all of the nodes is known only before this execution has actors of its own.

    Args:
        pool: The scoring actors.
        limit: Seconds after which the wait ends; None waits for as long as it takes.
        progress: Prints what the run waits for.
        needs: Returns what no node has; by default, of Ray's nodes.
        has_room: Returns whether an actor fits beside what runs now; by default, of Ray's resources.
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.
    """

    def __init__(
        self,
        pool: ActorPool,
        limit: float | None,
        progress: Progress,
        needs: Callable[[ActorPool], Waiting | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        has_room: Callable[[ActorPool], bool] | None = None,
    ) -> None:
        self._pool = pool
        self._limit = limit
        self._progress = progress
        self._needs = needs or _needs
        self._clock = clock
        self._has_room = has_room or _has_room
        self._is_full = not self._has_room(pool)
        self._checked = clock()

    def end(self) -> None:
        """Note that a block came."""
        self._checked = self._clock()
        self._is_full = False

    def end_in_use(self) -> None:
        """Note that this execution has actors: what holds the nodes may be itself."""
        self._is_full = False

    def check(self) -> None:
        """Print what the run waits for, if it is due.

        Raises:
            InputError: If it waits for longer than the limit.
        """
        if self._clock() - self._checked <= min(_SILENCE_SECONDS, self._limit or _SILENCE_SECONDS):
            return
        self.is_waiting()

    def is_waiting(self) -> bool:
        """Return whether no node could hold an actor, or has room for one, and print what is missing.

        Raises:
            InputError: If it waits for longer than the limit.
        """
        self._checked = self._clock()
        waiting = self._needs(self._pool)
        self._is_full = self._is_full and not self._has_room(self._pool)
        if waiting is None and self._is_full:
            waiting = _IN_USE
        waited = self._progress.wait_for(waiting)
        if waiting is not None and self._limit is not None and waited >= self._limit:
            raise InputError(
                f"--wait-minutes {self._limit / 60:g} is over, and the run still waits for {waiting.what} "
                f"({waiting.why}); what was finished is safe, and the same command resumes"
            )
        return waiting is not None


def let_go(pool: ActorPool) -> None:
    """Return once there is room for an actor, or what an ended execution held must be free.

    It ends with its data set, which is part of a cycle: nothing else may look for garbage for minutes.
    Whoever calls this holds neither the data set nor an error that came through its frames.
    """
    gc.collect()
    last = time.monotonic() + _RELEASE_SECONDS
    while not _has_room(pool) and time.monotonic() < last:
        time.sleep(0.5)


def _has_room(pool: ActorPool) -> bool:
    free = ray.available_resources()
    return all(free.get(kind, 0.0) >= each - 0.01 for kind, each in pool.resources.items() if each)


def _needs(pool: ActorPool) -> Waiting | None:
    autoscaler = find_autoscaler()
    types = autoscaler.with_gpus() if autoscaler else ()
    return waiting_for(pool, ray.nodes(), types)
