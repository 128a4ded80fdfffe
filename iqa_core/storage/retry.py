"""Retries after transient failures: one policy of attempts, backoff and jitter."""

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
    """Number of attempts and the waits between them: exponential backoff with jitter.

    >>> policy = RetryPolicy(attempts=4, first_wait=1.0, longest_wait=3.0, jitter=0.0)
    >>> [policy.wait_after(failures) for failures in (1, 2, 3)]
    [1.0, 2.0, 3.0]

    Attributes:
        attempts: Total number of attempts, at least 1.
        first_wait: Maximum seconds before the second attempt; doubles with each further attempt.
        longest_wait: Maximum seconds of any wait.
        jitter: Random share of each wait, 0 to 1.
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
        """Return the result of an action, retried as a policy allows.

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

#: Definite answers of a filesystem, which are not retried.
_ANSWERS = (FileNotFoundError, PermissionError, NotADirectoryError, FileExistsError)


def retried(action: Callable[[], T]) -> T:
    """Run an action on a remote filesystem, with retries after transient failures.

    Raises:
        OSError: The last failure, whatever the filesystem's library raised.
    """
    try:
        return STORE.call(action, lambda error: not isinstance(error, _ANSWERS))
    except _ANSWERS:
        raise
    except Exception as error:  # the libraries of stores raise any type
        raise OSError(f"{type(error).__name__}: {error}") from error
