"""Errors and statuses: the status of a row, images that can't be scored, unusable inputs."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ImageError", "InputError", "Status"]


_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*[a-z])")


class Status(StrEnum):
    """The outcome of a row. Every row of a manifest ends with exactly one of these."""

    OK = "ok"
    INVALID_ROW = "invalid_row"  # the row names no image: null or of a wrong type
    UNREADABLE = "unreadable"  # the manifest's own data of the row are damaged (--skip-damaged)
    DENIED = "denied"  # the URI is outside of what the run may read
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    NETWORK = "network"
    EMPTY = "empty"  # zero bytes
    UNSUPPORTED = "unsupported"  # not an image, or not in a form that this project reads
    DECODE_ERROR = "decode_error"  # an image, but damaged or cut short
    TOO_LARGE = "too_large"  # above the limit on bytes or pixels
    MODEL_ERROR = "model_error"


class InputError(ValueError):
    """An unusable input of the user: one line that names the value, the limit and the fix.

    The command line prints :meth:`on_command_line` without a traceback and ends with status 1; a
    notebook sees ``str(error)``. The first spells the flag of an argument, the second its keyword:

    >>> error = InputError(argument="list_size", value=24, limit="at most 16", fix="lower {list_size}")
    >>> str(error)
    'list_size (24) must be at most 16: lower list_size'
    >>> error.on_command_line()
    '--list-size 24 must be at most 16: lower --list-size'
    >>> str(InputError("--list-size has no effect here: run `iqa train --loss plcc`"))
    'list_size has no effect here: run `iqa train --loss plcc`'

    Args:
        message: The whole line, instead of all that follows, with flags as the command line spells
            them.
        argument: The argument's keyword.
        value: What was given.
        limit: The requirement, such as ``at least 1``.
        fix: What to do. Here and in ``limit``, other arguments stand in braces.
    """

    def __init__(
        self,
        message: str = "",
        *,
        argument: str | None = None,
        value: object = None,
        limit: str = "",
        fix: str = "",
    ) -> None:
        self.argument = argument
        self.value = value
        self.limit = limit
        self.fix = fix
        if argument is not None:
            message = f"{argument} ({value!r}) must be {_spelled(f'{limit}: {fix}', str)}"
        super().__init__(message)

    def __str__(self) -> str:
        """Return the line with the keywords of arguments."""
        parts = str(self.args[0]).split("`")
        for place in range(0, len(parts), 2):  # what is in backquotes is to be typed as it stands
            parts[place] = _FLAG.sub(lambda found: found[1].replace("-", "_"), parts[place])
        return "`".join(parts)

    def on_command_line(self) -> str:
        """Return the line as a user of the command line knows the arguments."""
        if self.argument is None:
            return str(self.args[0])
        return f"{_flag(self.argument)} {self.value} must be {_spelled(f'{self.limit}: {self.fix}', _flag)}"


def _flag(argument: str) -> str:
    return "--" + argument.replace("_", "-")


def _spelled(text: str, spell: Callable[[str], str]) -> str:
    """Replace ``{argument}`` in a text."""
    return re.sub(r"\{(\w+)\}", lambda found: spell(found[1]), text)


class ImageError(Exception):
    """One image can't be scored. Becomes the row's ``status`` and ``error``; never stops a job.

    Args:
        status: What kind of failure it is.
        message: What happened, in one line.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(status, message)  # both in args, for pickling
        self.status = status
        self.message = " ".join(message.split())

    def __str__(self) -> str:
        """Return the message alone; the status has its own column."""
        return self.message
