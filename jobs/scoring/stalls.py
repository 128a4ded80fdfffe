"""What a run does about an execution that leaves rows undone: it begins what is left again.

Ray Data ends an execution in which nothing moved for long, such as one of which a task was lost with its
node. And rows may be missing at the end of one: where a worker dies, Ray runs its task again and skips as
many of its blocks as had come before, whose ends depend on time and on what could be fetched.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ray.data.exceptions import ExecutionTimeoutError

from iqa_core.errors import InputError

from ..ray_errors import chain

if TYPE_CHECKING:
    from ..progress import Progress

__all__ = ["Stalls", "is_stall"]

#: Executions in a row that may end without a finished row.
_MOST = 3
#: How Ray Data's message names a stage: ``- NAME: 2 active task(s), ...``.
_STAGE = re.compile(r"^ *- (?P<name>.+): (?P<tasks>[1-9]\d*) active task", re.MULTILINE)


def is_stall(error: BaseException) -> bool:
    """Return whether Ray Data ended an execution because nothing moved."""
    return any(isinstance(cause, ExecutionTimeoutError) for cause in chain(error))


class Stalls:
    """Counts the executions of a run that left rows undone.

    Args:
        minutes: Minutes without any movement after which Ray Data ends an execution.
        progress: Prints that the rest is begun again.

    Attributes:
        total: Executions that were begun again.
    """

    def __init__(self, minutes: float, progress: Progress) -> None:
        self.total = 0
        self._minutes = minutes
        self._progress = progress
        self._rows = -1
        self._in_a_row = 0

    def begin_again(self, error: BaseException, rows: int) -> None:
        """Note that an execution stood still.

        Args:
            error: What Ray Data raised.
            rows: Rows that are finished.

        Raises:
            InputError: If several in a row have finished no row.
        """
        still = f"nothing moved for {self._minutes:g} min ({_stages(error)})"
        advice = "what hangs, or raise --stall-minutes if a batch takes that long"
        self._count(still, advice, rows, error)

    def begin_missing(self, missing: int, rows: int) -> None:
        """Note that an execution ended without some of its rows.

        Args:
            missing: Rows that did not come.
            rows: Rows that are finished.

        Raises:
            InputError: If several in a row have finished no row.
        """
        self._count(f"{missing:,} rows did not come", "workers that died", rows, None)

    def _count(self, what: str, advice: str, rows: int, error: BaseException | None) -> None:
        self._in_a_row = 1 if rows > self._rows else self._in_a_row + 1
        self._rows = rows
        if self._in_a_row == _MOST:
            raise InputError(
                f"{what}, {_MOST} times without a finished row: look at Ray's dashboard or `ray list "
                f"tasks` for {advice}; what was finished is safe, and the same command resumes"
            ) from error
        self.total += 1
        self._progress.say(f"{what}: what is left is begun again")


def _stages(error: BaseException) -> str:
    texts = [str(cause) for cause in chain(error) if isinstance(cause, ExecutionTimeoutError)]
    found = {match["name"]: match["tasks"] for text in texts for match in _STAGE.finditer(text)}
    names = [f"{name}: {tasks} unfinished" for name, tasks in found.items()]
    return ", ".join(names) or "no task runs"
