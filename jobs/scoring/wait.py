"""The wait for nodes: says what no node has, and ends after ``--wait-minutes``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import ray

from iqa_core.errors import InputError

from ..node_types import find_autoscaler
from .pool import waiting_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..progress import Progress, Waiting
    from .pool import ActorPool

__all__ = ["Wait"]

#: After this long without a block it is checked whether any node could hold an actor.
_SILENCE_SECONDS = 10.0


class Wait:
    """Watches a run that yields nothing, and says so if no node could hold a scoring actor.

    Args:
        pool: The scoring actors.
        limit: Seconds after which the wait ends; None waits for as long as it takes.
        progress: Prints what the run waits for.
        needs: Returns what no node has; by default, of Ray's nodes.
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.
    """

    def __init__(
        self,
        pool: ActorPool,
        limit: float | None,
        progress: Progress,
        needs: Callable[[ActorPool], Waiting | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._limit = limit
        self._progress = progress
        self._needs = needs or _needs
        self._clock = clock
        self._checked = clock()

    def end(self) -> None:
        """Note that a block came."""
        self._checked = self._clock()

    def check(self) -> None:
        """Print what the run waits for, if it is due.

        Raises:
            InputError: If it waits for longer than the limit.
        """
        if self._clock() - self._checked <= min(_SILENCE_SECONDS, self._limit or _SILENCE_SECONDS):
            return
        self.is_waiting()

    def is_waiting(self) -> bool:
        """Return whether no node could hold an actor now, and print what the run waits for.

        Raises:
            InputError: If it waits for longer than the limit.
        """
        self._checked = self._clock()
        waiting = self._needs(self._pool)
        waited = self._progress.wait_for(waiting)
        if waiting is not None and self._limit is not None and waited >= self._limit:
            raise InputError(
                f"--wait-minutes {self._limit / 60:g} is over, and the run still waits for {waiting.what} "
                f"({waiting.why}); what was finished is safe, and the same command resumes"
            )
        return waiting is not None


def _needs(pool: ActorPool) -> Waiting | None:
    autoscaler = find_autoscaler()
    types = autoscaler.with_gpus() if autoscaler else ()
    return waiting_for(pool, ray.nodes(), types)
