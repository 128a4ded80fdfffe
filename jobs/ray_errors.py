"""Finds what a failed Ray task has to say to the user."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from iqa_core.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["user_error"]


def user_error(error: BaseException) -> InputError | None:
    """Return the :class:`InputError` that a task raised, None if it ended otherwise.

    Args:
        error: What arrived at the driver: Ray wraps what a task raises, Ray Data once more.
    """
    for cause in _causes(error):
        # Ray's own classes that derive from the cause's have the worker's traceback as their text.
        if isinstance(cause, InputError) and type(cause).__module__.partition(".")[0] != "ray":
            # Ray Data appends advice on its retries to the message, which is one line.
            cause.args = (str(cause).partition("\n")[0], *cause.args[1:])
            return cause
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps, each once."""
    waiting = deque([error])
    seen: set[int] = set()
    while waiting:
        cause = waiting.popleft()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        wrapped = (getattr(cause, "cause", None), cause.__cause__, cause.__context__)
        waiting.extend(one for one in wrapped if isinstance(one, BaseException))
