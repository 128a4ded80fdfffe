"""Repeats what fails in a way that may pass: one policy of attempts, backoff and jitter."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["STORE", "RetryPolicy", "retried"]

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often something is tried, and how long to wait in between: exponential backoff with jitter.

    >>> policy = RetryPolicy(attempts=4, first_wait=1.0, longest_wait=3.0, jitter=0.0)
    >>> [policy.wait_after(failures) for failures in (1, 2, 3)]
    [1.0, 2.0, 3.0]

    Attributes:
        attempts: Attempts in all, at least 1.
        first_wait: Seconds before the second attempt, at most; twice as long before each further one.
        longest_wait: Seconds that no wait exceeds.
        jitter: Share of each wait that is left to chance, 0 to 1.
    """

    attempts: int
    first_wait: float
    longest_wait: float = math.inf
    jitter: float = 0.5

    def wait_after(self, failures: int) -> float:
        """Return how many seconds to wait after N failed attempts, N at least 1."""
        longest = min(self.longest_wait, self.first_wait * 2.0 ** (failures - 1))
        return longest * random.uniform(1.0 - self.jitter, 1.0)  # noqa: S311 - jitter

    def is_exhausted(self, failures: int) -> bool:
        """Return whether no attempt is left after N failed ones."""
        return failures >= self.attempts

    def call(
        self,
        action: Callable[[], T],
        may_pass: Callable[[Exception], bool],
        sleep: Callable[[float], object] = time.sleep,
    ) -> T:
        """Return what an action returns, after as many attempts as are needed and allowed.

        Args:
            action: What to do.
            may_pass: Returns whether a further attempt makes sense after an exception.
            sleep: Waits for some seconds.

        Raises:
            Exception: Of the last attempt.
        """
        failures = 0
        while True:
            try:
                return action()
            except Exception as error:
                failures += 1
                if self.is_exhausted(failures) or not may_pass(error):
                    raise
            sleep(self.wait_after(failures))


#: Of requests to a remote filesystem.
STORE = RetryPolicy(attempts=5, first_wait=0.3)

#: Answers of a filesystem, which another attempt does not change.
_ANSWERS = (FileNotFoundError, PermissionError, NotADirectoryError, FileExistsError)


def retried(action: Callable[[], T]) -> T:
    """Do something with a remote filesystem, again if it fails in a way that may pass.

    Raises:
        OSError: The last failure, whatever the filesystem's library raised.
    """
    try:
        return STORE.call(action, lambda error: not isinstance(error, _ANSWERS))
    except _ANSWERS:
        raise
    except Exception as error:  # libraries of stores raise whatever they like
        raise OSError(f"{type(error).__name__}: {error}") from error
