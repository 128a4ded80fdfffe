"""The state of a file: what changes, for all practical purposes, when its content does."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileState", "states_of"]


class FileState(NamedTuple):
    """The state of a file, or that there is none.

    Attributes:
        path: Absolute path.
        target: The path behind all links, as a cache of downloads has one.
        size: In bytes; -1 where there is no such file.
        mtime_ns: Time of the last change, in nanoseconds since the epoch; -1 where there is none.
    """

    path: str
    target: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> FileState:
        """Return the present state of a path.

        Raises:
            OSError: If that can't be found out.
        """
        path = os.path.abspath(path)
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return cls(path, os.path.realpath(path), -1, -1)
        return cls(path, os.path.realpath(path), found.st_size, found.st_mtime_ns)


def states_of(*paths: Path) -> tuple[FileState, ...]:
    """Return the states of files and of the shards that those which are an index list.

    Take them before the files are read: then a change while they are read is noticed later.

    Args:
        paths: Files, not all of which need to exist.

    Returns:
        The states; empty where they can't be had.
    """
    try:
        shards = [path.parent / name for path in paths for name in _shards(path)]
        return tuple(FileState.of(path) for path in (*paths, *shards))
    except OSError:
        return ()


def _shards(path: Path) -> list[str]:
    if path.suffix != ".json" or not path.is_file():
        return []
    try:
        return sorted(map(str, set(json.loads(path.read_bytes())["weight_map"].values())))
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # no index
