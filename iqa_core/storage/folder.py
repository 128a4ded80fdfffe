"""Folders on any filesystem of fsspec, and atomic writes."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from iqa_core.errors import ImageError, InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.retry import retried

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["CONNECTIONS", "Folder", "has_scheme", "open_filesystem"]

T = TypeVar("T")

#: Maximum number of requests to a store at the same time.
CONNECTIONS = 64


def has_scheme(uri: str) -> bool:
    """Return whether a text is a URI such as ``s3://bucket/key`` rather than a plain path."""
    return "://" in uri or "::" in uri


def open_filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of a path or URI that a user named, and the path on it.

    As ``fsspec.core.url_to_fs``, but HTTP URLs are sent as written.

    Raises:
        ImportError, ValueError: If the scheme is not installed or unknown, or a URL is none.
    """
    if uri.lower().startswith(("http://", "https://")):
        from iqa_core.fetch.http import HttpFiles
        from iqa_core.fetch.uri import WebAddress

        try:
            WebAddress.of(uri)
        except ImageError as error:
            raise ValueError(str(error)) from error
        return HttpFiles(), uri
    fs, path = fsspec.core.url_to_fs(uri, **_options_of(uri))
    return fs, path


def _options_of(uri: str) -> dict[str, Any]:
    """Return options of a filesystem beyond the user's own: as many connections to S3 as are used."""
    protocol = uri.partition("://")[0]
    if protocol not in ("s3", "s3a"):
        return {}
    given = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    return {"config_kwargs": {"max_pool_connections": CONNECTIONS} | given}


def _escaped(path: str) -> str:
    """Return a glob pattern that matches exactly a path, with its special characters escaped."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in path)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: it survives a power failure."""
    with suppress(OSError):  # not every filesystem can; the file itself is written
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Folder:
    """A folder on any filesystem of fsspec.

    Attributes:
        uri: Its path or URI.
        fs: The filesystem.
        root: The folder's path on that filesystem.
        query: The query that signs requests for its files, with its ``?``; empty if there is none.
    """

    uri: str
    fs: fsspec.AbstractFileSystem
    root: str
    query: str = field(default="", repr=False)

    @classmethod
    def of(cls, uri: str) -> Folder:
        """Open a folder by path or URI; it need not exist yet."""
        fs, root = open_filesystem(uri if has_scheme(uri) else str(Path(uri).absolute()))
        return cls(uri, fs, root.rstrip("/"))

    @classmethod
    def given(cls, uri: str, option: str) -> Folder:
        """Open a folder that a user named in an option.

        Raises:
            InputError: If its scheme is unknown or not installed.
        """
        try:
            return cls.of(uri)
        except (ImportError, ValueError) as error:
            raise InputError(f"--{option} {uri} can't be opened: {error}") from error

    @classmethod
    def of_file(cls, uri: str, option: str) -> tuple[Folder, str]:
        """Open the folder of a file that a user named in an option; return it and the file's name.

        Raises:
            InputError: As of :meth:`given`.
        """
        parent, _, name = uri.rpartition("/")
        return cls.given(parent or ("/" if uri.startswith("/") else "."), option), name

    @property
    def is_local(self) -> bool:
        """Whether it is on a local disk."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return the path of a file in it."""
        return f"{self.root}/{name}{self.query}"

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""

        def find() -> bool:
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self.path(name)))

        return self.retried(find)

    def list(self, pattern: str) -> list[str]:
        """Return the names below the folder that match a glob pattern, sorted."""
        return list(self.stamps(pattern))

    def stamps(self, pattern: str) -> dict[str, str]:
        """Return such names, sorted, each with a version tag that changes when the file is replaced."""

        def find() -> dict[str, Any]:
            self.fs.invalidate_cache()
            found: dict[str, Any] = self.fs.glob(f"{_escaped(self.root)}/{pattern}", detail=True)
            return found

        found = self.retried(find)
        names = {str(PurePosixPath(path).relative_to(self.root)): path for path in sorted(found)}
        return {name: str(found[path]) for name, path in names.items()}

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically: readers see all of it or nothing.

        Locally under a temporary name in the same folder, then renamed; on an object store as one
        PUT, which is atomic there.

        Raises:
            OSError: If it can't be written; nothing is left under the final name.
        """
        if not self.is_local:
            self.retried(lambda: self.fs.pipe_file(self.path(name), data))
            return
        final = Path(self.path(name))
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
            _sync_folder(final.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def sweep(self, pattern: str) -> None:
        """Remove temporary files that killed processes left of files that match a pattern."""
        if self.is_local:
            for path in Path(self.root).glob(f".{pattern}.*.tmp"):
                path.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return self.retried(lambda: bytes(self.fs.cat_file(self.path(name))))

    def remove(self, name: str) -> None:
        """Remove a file; no error if it is gone already."""
        with suppress(FileNotFoundError):
            self.retried(lambda: self.fs.rm_file(self.path(name)))

    def modified(self, name: str) -> datetime:
        """Return when a file was written, by the clock of the filesystem."""

        def find() -> datetime:
            self.fs.invalidate_cache()
            found: datetime = self.fs.modified(self.path(name))
            return found

        return self.retried(find)

    def retried(self, action: Callable[[], T]) -> T:
        """Run an action; on a remote store, retry it after transient failures."""
        return action() if self.is_local else retried(action)

    def write_json(self, name: str, document: Any) -> None:  # noqa: ANN401 - what JSON holds
        """Write a JSON document atomically."""
        self.write(name, json.dumps(document, indent=2, default=str).encode() + b"\n")

    def read_json(self, name: str) -> Any:  # noqa: ANN401 - what JSON holds
        """Return a JSON document.

        Raises:
            InputError: If it is damaged.
            OSError: If it can't be read.
        """
        content = self.read(name)
        try:
            return json.loads(content)
        except ValueError as error:
            raise self.damaged(name, error_line(error)) from error

    def read_object(self, name: str) -> dict[str, Any]:
        """Return a JSON object.

        Raises:
            InputError: If it is damaged, or can't be read.
            FileNotFoundError, NotADirectoryError: If it is not there.
        """
        try:
            document = self.read_json(name)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise InputError(
                f"{redact(self.uri).rstrip('/')}/{name} can't be read: {error_line(error)}"
            ) from error
        if not isinstance(document, dict):
            raise self.damaged(name, "it is no JSON object")
        return document

    def damaged(self, name: str, reason: str) -> InputError:
        """Return the error of a file whose content is not what this program writes."""
        return InputError(
            f"{redact(self.uri).rstrip('/')}/{name} is damaged ({reason}): restore it from a copy"
        )
