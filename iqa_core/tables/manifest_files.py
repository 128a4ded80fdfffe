"""Finds the Parquet files of a manifest, and identifies the content of each."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder, has_scheme, open_filesystem
from iqa_core.storage.walk import EntryKind, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "FOOTER",
    "content_digest",
    "digest_like",
    "file_info",
    "file_stamp",
    "find_files",
    "footer_digest",
    "has_checksum",
]

_SUFFIX = ".parquet"
_WILDCARDS = "*?["
#: Of s3fs, gcsfs and huggingface_hub.
_CHECKSUMS = ("ETag", "md5Hash", "blob_id")
_TIMES = ("mtime", "LastModified", "last_modified", "updated")
_DIGEST_BYTES = 2**28
#: What the digest of a footer begins with.
FOOTER = "footer "


@dataclass
class _Found:
    """The files that were found: names relative to a root, names of other files, and notes on links."""

    root: str
    names: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_there: bool = True
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)  # by path, of a store's listing


def find_files(uri: str) -> tuple[Folder, list[str], list[str], dict[str, dict[str, Any]]]:
    """Find the files of a manifest.

    Args:
        uri: A file with any name, a glob, or a folder, of which the ``*.parquet`` files at any depth
            count. Names that begin with an underscore or a dot are left out, unless named explicitly.

    Returns:
        The folder that names are relative to; the names, sorted; what a user should know of
        folders and symbolic links that were left out; and what a store's listing told of files, by path.

    Raises:
        InputError: If there are none, or they can't be listed.
    """
    shown = redact(uri)
    try:
        if uri.lower().startswith(("http://", "https://")) and "?" in uri:
            return *_one_signed_file(uri), [], {}
        fs, path = open_filesystem(uri)
        path = path.rstrip("/")
        folder = Folder(uri, fs, path)
        found = folder.retried(lambda: _find(folder, path))
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"--manifest {shown} can't be read: {redact(str(error))}") from error
    if not found.is_there:
        raise InputError(f"--manifest {shown} does not exist: check the path")
    if not found.names:
        hints = [f"; {note}" for note in found.notes[:1]]
        if found.others:
            example = redact(f"{found.root}/{found.others[0]}")
            hints.append(f"; a file with another name, such as {example}, is read if it is named")
        raise InputError(
            f"--manifest {shown} holds no *{_SUFFIX} file: make one with `iqa manifest`"
            + "".join(hints)
        )
    # Of HTTP, the path is the whole URL; and a file:// manifest is as local as one without.
    bare = has_scheme(found.root) or "://" not in uri or folder.is_local
    root = found.root if bare else f"{uri.partition('://')[0]}://{found.root}"
    return Folder(root, fs, found.root), found.names, found.notes, found.infos


def _one_signed_file(uri: str) -> tuple[Folder, list[str]]:
    """Open a URL with a query, which stays with the requests: it is no name, and may be a secret."""
    place, _, query = uri.partition("?")
    root, _, name = place.rpartition("/")
    fs, _ = open_filesystem(place)
    return Folder(root, fs, root, query=f"?{query}"), [name]


def _find(folder: Folder, path: str) -> _Found:
    fs = folder.fs
    if any(sign in path for sign in _WILDCARDS) and not fs.exists(path):
        return _find_by_glob(folder, path)
    if _is_folder(fs, path):
        if folder.is_local:
            return _of_folder(*_walk(path), root=path)
        infos = fs.find(path, detail=True)
        return _of_folder(list(infos), [], root=path, infos=infos)
    root, _, name = path.rpartition("/")
    return _Found(root, [name], is_there=bool(fs.exists(path)))


def _find_by_glob(folder: Folder, pattern: str) -> _Found:
    """Find the files that match a glob, and the ``*.parquet`` files of matching folders."""
    first = min(pattern.index(sign) for sign in _WILDCARDS if sign in pattern)
    root = pattern[:first].rpartition("/")[0]
    notes: list[str] = []
    if folder.is_local:
        matches = re.compile(glob_translate(pattern)).match
        depth = pattern.count("/") if "**" not in pattern else sys.maxsize

        def is_within(path: str) -> bool:
            return any(matches(parent) for parent in _parents(path, root))

        found, notes = _walk(
            root, lambda path: path.count("/") < depth or bool(matches(path)) or is_within(path)
        )
        files = [path for path in found if matches(path)]
        within = [path for path in found if is_within(path)]
    else:
        matched = folder.fs.glob(pattern, detail=True)
        folders = [path for path, info in matched.items() if info["type"] == "directory"]
        files = [path for path in matched if path not in folders]
        within = [path for place in folders for path in folder.fs.find(place)]
    result = _of_folder([*files, *within], notes, root=root)
    if pattern.rpartition("/")[2].strip(
        "*"
    ):  # else all is wildcard, and names no more than a folder
        result.names = sorted({*result.names, *_relative(files, root)})
    result.is_there = bool(files or within)
    return result


def _of_folder(
    paths: list[str],
    notes: list[str],
    *,
    root: str,
    infos: dict[str, dict[str, Any]] | None = None,
) -> _Found:
    names = _relative(paths, root)
    tables = [name for name in names if name.endswith(_SUFFIX)]
    others = [name for name in names if not name.endswith(_SUFFIX)]
    return _Found(root, tables, others, notes, infos=infos or {})


def _parents(path: str, root: str) -> Iterator[str]:
    """Yield the folders that a path lies in, below a root."""
    while len(path := path.rpartition("/")[0]) > len(root):
        yield path


def _relative(paths: list[str], root: str) -> list[str]:
    """Return names below a root, sorted, without those that are hidden."""
    names = {str(PurePosixPath(path).relative_to(root or "/")) for path in paths}
    return sorted(n for n in names if not any(_is_hidden(part) for part in n.split("/")))


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _is_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    if has_scheme(path):  # HTTP, where to ask for a list is to read the whole file
        with suppress(FileNotFoundError):
            if "html" not in (fs.info(path).get("mimetype") or "html"):
                return False
    return bool(fs.isdir(path))


def _walk(root: str, enter: Callable[[str], bool] | None = None) -> tuple[list[str], list[str]]:
    """Find the files below a local folder, through symbolic links, each real folder once.

    Args:
        root: The folder.
        enter: Whether to read a folder below it; by default each.

    Returns:
        The paths of the files, and a sentence on each folder and link that was left out.
    """

    def accept(path: str, is_folder: bool) -> bool:
        hidden = _is_hidden(path.rpartition("/")[2])
        return not hidden and (not is_folder or enter is None or enter(path))

    files: list[str] = []
    notes: list[str] = []
    for entry in walk(root, accept):
        path = entry.path
        match entry.kind:
            case EntryKind.UNREADABLE:
                notes.append(f"{path} is left out: it can't be listed ({entry.detail})")
            case EntryKind.ABOVE:
                notes.append(f"{path} is not followed: it links to a folder that holds {root}")
            case EntryKind.SEARCHED_BEFORE:
                notes.append(f"{path} is not followed: it is {entry.detail}, which is read already")
            case EntryKind.BROKEN_LINK if not path.endswith(_SUFFIX):
                notes.append(f"{path} is left out: it links to {os.readlink(path)}, which is gone")
            case EntryKind.NOT_REGULAR if not path.endswith(_SUFFIX):
                pass
            case _:
                files.append(path)
    return files, notes


def file_info(folder: Folder, handle: Any, path: str) -> dict[str, Any]:  # noqa: ANN401
    """Return the filesystem's information on an open file, without another request if possible."""
    info: dict[str, Any] = getattr(handle, "details", None) or folder.fs.info(path)
    return info


def file_stamp(folder: Folder, info: Mapping[str, Any]) -> str:
    """Return a version tag that changes when a file is replaced; the file is not read."""
    known = None
    if not has_scheme(folder.root):  # servers of HTTP tag as they like
        # Checksums first: a listing may have a time more exactly than the file's own headers.
        known = next((info[key] for key in (*_CHECKSUMS, *_TIMES) if info.get(key)), None)
    return f"{info.get('size')} {known}"


def has_checksum(folder: Folder, info: Mapping[str, Any]) -> bool:
    """Return whether a store has told its own checksum of a file."""
    return _checksum(folder, info) is not None


def _checksum(folder: Folder, info: Mapping[str, Any]) -> str | None:
    if has_scheme(folder.root):  # servers of HTTP tag as they like
        return None
    return next((f"{key} {info[key]}" for key in _CHECKSUMS if info.get(key)), None)


def content_digest(
    folder: Folder,
    handle: Any,  # noqa: ANN401
    info: Mapping[str, Any],
    metadata: pq.FileMetaData,
    *,
    whole: bool = True,
) -> str:
    """Return a digest that differs for another content of the same size.

    The store's own checksum where it has one; else of the file itself if it is local and not large,
    or of the footer, which has the sizes and extreme values of all columns.

    Args:
        folder: The manifest's folder.
        handle: The opened file.
        info: Of :func:`file_info`.
        metadata: The file's footer.
        whole: Whether a local file may be read for it.
    """
    if checksum := _checksum(folder, info):
        return checksum
    if whole and folder.is_local and info["size"] <= _DIGEST_BYTES:
        handle.seek(0)
        return hashlib.file_digest(handle, "blake2b").hexdigest()[:32]
    return f"{FOOTER}{footer_digest(metadata)}"


def digest_like(folder: Folder, path: str, like: str | None) -> str:
    """Return the digest of a file as it is now, made as an earlier one was where that can be done.

    Args:
        folder: The manifest's folder.
        path: The file's path on its filesystem.
        like: The earlier digest.

    Raises:
        OSError, pyarrow.ArrowException: If the file can't be read.
    """
    info = folder.fs.info(path)
    with folder.fs.open(path, "rb") as handle:
        whole = not (like or "").startswith(FOOTER)
        return content_digest(folder, handle, info, pq.read_metadata(handle), whole=whole)


def footer_digest(metadata: pq.FileMetaData) -> str:
    """Return a digest of a Parquet file's footer."""
    footer = io.BytesIO()
    metadata.write_metadata_file(footer)
    return hashlib.blake2b(footer.getvalue()).hexdigest()[:32]
