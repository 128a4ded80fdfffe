"""The files below a local folder, through symbolic links, each linked folder once.

Folders are searched breadth first. Links to folders come last, so that a folder keeps its own name where
a link leads to it as well; a link that leads back, or to a folder that was searched before, is reported
instead of followed.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Entry", "EntryKind", "walk"]


class EntryKind(Enum):
    """What was found at a path."""

    FILE = auto()
    BROKEN_LINK = auto()  # leads nowhere
    NOT_REGULAR = auto()  # neither a file nor a folder
    SEARCHED_BEFORE = auto()  # a link to, or a folder behind a link that is, a folder of before
    ABOVE = auto()  # a link to a folder that the root lies in
    UNREADABLE = auto()  # a folder that can't be listed


@dataclass(frozen=True)
class Entry:
    """One path that a walk found.

    Attributes:
        path: The path, which begins with the root.
        kind: What is there.
        detail: For ``SEARCHED_BEFORE`` the folder's first path; for ``UNREADABLE`` the reason.
    """

    path: str
    kind: EntryKind
    detail: str = ""


def walk(
    root: str,
    accept: Callable[[str, bool], bool],
    *,
    follow_above: bool = False,
    links_by_name: bool = False,
) -> Iterator[Entry]:
    """Find the files below a local folder.

    Args:
        root: The folder.
        accept: Takes a path, and whether it is a folder; returns whether it is yielded or searched.
        follow_above: Search folders that the root lies in, too, where a link leads to one.
        links_by_name: Follow the links that are found together in the order of their paths, not in
            the order in which they are found.

    Yields:
        What was found, files of one folder in no particular order.

    Raises:
        OSError: If the root itself can't be listed.
    """
    search = _Search(root.rstrip("/"), accept, follow_above=follow_above)
    yield from search.folder(search.root, behind_link=False)
    while search.links:
        links, search.links = search.links, []
        for link in sorted(links) if links_by_name else links:
            yield from search.folder(link, behind_link=True)


class _Search:
    def __init__(
        self, root: str, accept: Callable[[str, bool], bool], *, follow_above: bool
    ) -> None:
        self.root = root
        self.links: list[str] = []  # to folders, not yet followed
        self._accept = accept
        self._searched: dict[tuple[int, int], str] = {}
        parents = () if follow_above else Path(root or "/").resolve().parents
        self._above = {_identity(str(parent)) for parent in parents}

    def folder(self, start: str, *, behind_link: bool) -> Iterator[Entry]:
        """Search a folder and everything below it except links to folders."""
        pending = deque([start])
        while pending:
            place = pending.popleft()
            try:
                before = self._why_not(place) if behind_link else None
                if before is not None:
                    yield before
                    continue
                self._searched.setdefault(_identity(place or "/"), place)
                below: list[str] = []
                yield from self._entries(place, below)
            except OSError as error:
                if place == self.root:
                    raise
                yield Entry(place, EntryKind.UNREADABLE, error.strerror or str(error))
                continue
            pending += sorted(below)

    def _why_not(self, place: str) -> Entry | None:
        """Return why a folder behind a link is not searched; only links lead to a folder twice."""
        identity = _identity(place or "/")
        if identity in self._above:
            return Entry(place, EntryKind.ABOVE)
        # Some filesystems have no inode numbers.
        if identity[1] and identity in self._searched:
            return Entry(place, EntryKind.SEARCHED_BEFORE, self._searched[identity])
        return None

    def _entries(self, place: str, below: list[str]) -> Iterator[Entry]:
        """Yield what is in one folder, and add the folders below it to a list."""
        links: list[str] = []
        with os.scandir(place or "/") as entries:
            for entry in entries:
                path = f"{place}/{entry.name}"
                is_folder = _is_folder(entry)
                if not self._accept(path, is_folder):
                    continue
                if is_folder:
                    (links if entry.is_symlink() else below).append(path)
                else:
                    yield Entry(path, _kind_of(entry))
        self.links += sorted(links)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link that leads to itself
        return entry.is_dir()
    return False


def _kind_of(entry: os.DirEntry[str]) -> EntryKind:
    with suppress(OSError):
        if entry.is_file():
            return EntryKind.FILE
    return EntryKind.BROKEN_LINK if entry.is_symlink() else EntryKind.NOT_REGULAR
