"""Files of folders and glob patterns, local and on remote stores, without the system's own files.

Links to folders are followed, each folder once: a link that leads back, or to a folder that is listed
anyway, is reported instead.
"""

from __future__ import annotations

import os
import unicodedata
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.encodings import printable
from iqa_core.storage.folder import has_scheme
from iqa_core.storage.retry import retried
from iqa_core.storage.walk import EntryKind, walk
from iqa_core.tables.listing_report import ListingReport, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["find_files", "is_hidden", "is_pattern"]

#: What macOS, Windows and network storage put beside people's files, in lower case: besides names that
#: begin with a dot, which hold thumbnails, waste and the other half of macOS's files (``._a.jpg``).
_SYSTEM_NAMES = frozenset(
    {"__macosx", "network trash folder", "temporary items"}
    | {"thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
    | {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}
    | {"lost+found"}
)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or an operating system's own."""
    dotted = name.startswith(".") and name not in (".", "..")
    return dotted or name.lower() in _SYSTEM_NAMES


def is_pattern(path: str) -> bool:
    """Return whether a path contains wildcards of a glob pattern."""
    return any(sign in path for sign in "*?[")


def find_files(source: str, report: ListingReport) -> tuple[list[str], list[str]]:
    """Find the files of a folder to any depth, of a glob pattern, or the file that is named.

    A folder that a pattern matches is searched to any depth, as if the shell had expanded the pattern.

    Args:
        source: Path or URI.
        report: What is left out is added to it.

    Returns:
        Paths or URIs of the files, sorted, and each relative to the folder, or to what all files
        that match the pattern have in common.

    Raises:
        InputError: If the source does not exist, matches nothing or can't be read.
    """
    left_out = report.total
    try:
        fs, path = fsspec.core.url_to_fs(source if has_scheme(source) else _absolute(source))
        if isinstance(fs, LocalFileSystem):
            found = _find_local(path, report)
        else:
            found = _find_remote(fs, path, report)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{_shown(source)} does not exist: give a folder, a glob, an image or a CSV file"
        ) from error
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"{_shown(source)} can't be read: {redact(str(error))}") from error
    if not found[0] and is_pattern(source) and report.total == left_out:
        raise InputError(f"{_shown(source)} matches no file: check the pattern")
    return found


def _absolute(source: str) -> str:
    """Return an absolute path, with its accents composed or decomposed as the file has them."""
    path = str(Path(source).absolute())
    forms = [path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]
    return next(filter(os.path.lexists, forms), path)


def _shown(source: str) -> str:
    return printable(redact(source))


# Local files --------------------------------------------------------------------------------------


def _find_local(path: str, report: ListingReport) -> tuple[list[str], list[str]]:
    if os.path.lexists(path) or not is_pattern(path):
        os.stat(path)  # says why it can't be read
        if not os.path.isdir(path):
            return [path], [os.path.basename(path)]
        names = _walk(path, (), report)
        return [os.path.join(path, name) for name in names], names
    root, pattern = _split_pattern(path)
    names = _walk(root, pattern, report)
    return _relative_to_common([os.path.join(root, name) for name in names])


def _split_pattern(path: str) -> tuple[str, tuple[str, ...]]:
    """Split a pattern at the first part that does not exist literally."""
    root = "/"
    parts = [part for part in path.split("/") if part]
    for number, part in enumerate(parts):
        if not os.path.isdir(os.path.join(root, part)):
            return root, tuple(parts[number:])
        root = os.path.join(root, part)
    return root, ()


def _relative_to_common(files: list[str]) -> tuple[list[str], list[str]]:
    root = os.path.commonpath(files) if len(files) > 1 else os.path.dirname("".join(files))
    return files, [file[len(root) :].lstrip("/") for file in files]


def _walk(root: str, pattern: Sequence[str], report: ListingReport) -> list[str]:
    """Find files below a folder, through symbolic links, each linked folder once.

    Args:
        root: The folder.
        pattern: The parts of a glob pattern relative to it; none for all files.
        report: What is left out is added to it.

    Returns:
        The files, relative to the root, sorted.
    """
    start = len(root.rstrip("/")) + 1

    def accept(path: str, is_folder: bool) -> bool:
        below = path[start:]
        name = below.rpartition("/")[2]
        if not fits(pattern, below.split("/"), as_folder=is_folder):
            return False
        if is_hidden(name) and not _is_named(name, pattern):
            report.add(Reason.HIDDEN, f"{below}/" if is_folder else below)
            return False
        return True

    files = []
    try:
        for entry in walk(root, accept, follow_above=True, links_by_name=True):
            below = entry.path[start:]
            match entry.kind:
                case EntryKind.FILE:
                    files.append(below)
                case EntryKind.BROKEN_LINK:
                    report.add(Reason.BROKEN_LINK, below)
                case EntryKind.SEARCHED_BEFORE | EntryKind.ABOVE:
                    report.add(Reason.LISTED_ALREADY, below)
                case EntryKind.NOT_REGULAR:
                    report.add(Reason.NOT_REGULAR, below)
                case EntryKind.UNREADABLE:
                    report.add(Reason.UNREADABLE, f"{below}: {entry.detail}")
    except OSError as error:  # of the root
        report.add(Reason.UNREADABLE, f"{root}: {error.strerror}")
    return sorted(files)


def fits(pattern: Sequence[str], parts: Sequence[str], *, as_folder: bool = False) -> bool:
    """Return whether a path, or a folder that it lies in, matches a glob pattern.

    Args:
        pattern: The pattern's parts; ``**`` stands for any number of folders. None fits all.
        parts: The path's parts.
        as_folder: Whether the path is a folder, in which a match may lie.
    """
    if not pattern:
        return True
    if not parts:
        return as_folder
    if pattern[0] == "**":
        rests = (parts[number:] for number in range(len(parts) + 1))
        return any(fits(pattern[1:], rest, as_folder=as_folder) for rest in rests)
    return fnmatchcase(parts[0], pattern[0]) and fits(pattern[1:], parts[1:], as_folder=as_folder)


def _is_named(name: str, pattern: Iterable[str]) -> bool:
    """Return whether a hidden name matches a part of the pattern that is itself a hidden name."""
    return any(is_hidden(part) and fnmatchcase(name, part) for part in pattern)


# Remote stores ------------------------------------------------------------------------------------


def _find_remote(
    fs: fsspec.AbstractFileSystem, path: str, report: ListingReport
) -> tuple[list[str], list[str]]:
    root, pattern, files = retried(lambda: _list_remote(fs, path))
    kept = []
    for file in sorted(set(files)):
        below = file[len(root) :].strip("/").split("/") if file.startswith(root) else []
        if file != path and any(is_hidden(name) and not _is_named(name, pattern) for name in below):
            report.add(Reason.HIDDEN, redact(file))
        else:
            kept.append(file)
    if pattern or kept == [path]:
        kept, names = _relative_to_common(kept)
    else:
        names = [file[len(root) :].lstrip("/") for file in kept]
    return [fs.unstrip_protocol(file) for file in kept], names


def _list_remote(fs: fsspec.AbstractFileSystem, path: str) -> tuple[str, list[str], list[str]]:
    """Return the folder that is searched, the parts of a pattern below it, and all files."""
    if fs.exists(path):
        return path.rstrip("/"), [], fs.find(path)
    if not is_pattern(path):
        raise FileNotFoundError(path)
    parts = path.split("/")
    fixed = next(number for number, part in enumerate(parts) if is_pattern(part))
    found: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
    files = [name for name, info in found.items() if info["type"] != "directory"]
    folders = [name for name, info in found.items() if info["type"] == "directory"]
    files += [file for folder in folders for file in fs.find(folder)]
    return "/".join(parts[:fixed]), parts[fixed:], files
