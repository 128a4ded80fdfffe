"""Local and remote files through fsspec: writes that are whole or nothing, and fetches."""

from __future__ import annotations

import asyncio
import json
import os
import random
import stat
import time
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem

from iqa_core.schema import ImageError, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Fetcher", "Folder", "has_scheme"]


def has_scheme(uri: str) -> bool:
    """Return whether a text is a URI such as ``s3://bucket/key`` rather than a plain path."""
    return "://" in uri or "::" in uri


@dataclass(frozen=True)
class Folder:
    """A folder on any filesystem that fsspec speaks.

    Attributes:
        uri: Its path or URI.
        fs: The filesystem.
        root: The folder's path on that filesystem.
    """

    uri: str
    fs: fsspec.AbstractFileSystem
    root: str

    @classmethod
    def of(cls, uri: str) -> Folder:
        """Open a folder by path or URI; it need not exist yet."""
        fs, root = fsspec.core.url_to_fs(uri if has_scheme(uri) else str(Path(uri).absolute()))
        return cls(uri, fs, root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's disk."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return the path of a file in it."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Return whether a file is there."""
        return bool(self.fs.exists(self.path(name)))

    def list(self, pattern: str) -> list[str]:
        """Return the names below the folder that match a glob pattern, sorted."""
        self.fs.invalidate_cache()
        found = self.fs.glob(self.path(pattern))
        return sorted(str(PurePosixPath(path).relative_to(self.root)) for path in found)

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it is seen whole or not at all.

        Locally under a temporary name in the same folder, then renamed; on an object store as one
        PUT, which is atomic there.

        Raises:
            OSError: If it can't be written; nothing is left under the final name.
        """
        if not self.is_local:
            self.fs.pipe_file(self.path(name), data)
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
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return bytes(self.fs.cat_file(self.path(name)))

    def write_json(self, name: str, document: Any) -> None:  # noqa: ANN401 - what JSON holds
        """Write a JSON document, whole or not at all."""
        self.write(name, json.dumps(document, indent=2, default=str).encode() + b"\n")

    def read_json(self, name: str) -> Any:  # noqa: ANN401 - what JSON holds
        """Return a JSON document."""
        return json.loads(self.read(name))


_CODES = {
    "403": Status.FORBIDDEN,
    "404": Status.NOT_FOUND,
    "408": Status.TIMEOUT,
    "410": Status.NOT_FOUND,
    "401": Status.FORBIDDEN,
    "429": Status.THROTTLED,
    "503": Status.THROTTLED,
    "AccessDenied": Status.FORBIDDEN,
    "NoSuchBucket": Status.NOT_FOUND,
    "NoSuchKey": Status.NOT_FOUND,
    "SlowDown": Status.THROTTLED,
}
_TRANSIENT = {Status.THROTTLED, Status.TIMEOUT, Status.NETWORK}


@dataclass(frozen=True)
class Fetcher:
    """Reads images by URI: with a time limit, retries for what may pass, and one error kind each.

    Attributes:
        base: Folder that relative paths are relative to.
        timeout: Seconds for one attempt at a remote file.
        retries: Further attempts for throttling, time-outs and network errors.
        max_bytes: Limit on an encoded image.
        concurrency: Files fetched at once by :meth:`stream`.
    """

    base: str
    timeout: float = 30.0
    retries: int = 3
    max_bytes: int = 256 * 1024 * 1024
    concurrency: int = 16

    def resolve(self, uri: str) -> str:
        """Return the absolute path or URI of a manifest's entry.

        Raises:
            ImageError: ``denied`` if a remote manifest names a file of this machine.
        """
        local = not has_scheme(uri) or uri.startswith(("file:", "local:"))
        if has_scheme(self.base) and not self.base.startswith("file:"):
            if uri.startswith(("/", "file:", "local:")) or ".." in PurePosixPath(uri).parts:
                raise ImageError(
                    Status.DENIED, f"{uri} is a local path, but the manifest is remote: not read"
                )
            return uri if has_scheme(uri) else f"{self.base.rstrip('/')}/{uri}"
        if local and not has_scheme(uri):
            return str(Path(self.base) / uri)
        return uri

    def fetch(self, uri: str) -> bytes:
        """Return one file's content.

        Raises:
            ImageError: With the status that says why not.
        """
        target = self.resolve(uri)
        for attempt in range(self.retries + 1):
            try:
                return self._read(target)
            except ImageError:
                raise
            except Exception as error:  # filesystems raise whatever they like
                status = _status_of(error)
                if status not in _TRANSIENT or attempt == self.retries:
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise ImageError(status, f"{type(error).__name__}: {text}"[:300]) from error
            time.sleep(random.uniform(0.5, 1.0) * min(8.0, 0.25 * 2**attempt))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    def stream(self, uris: Sequence[str | None]) -> Iterator[bytes | ImageError | None]:
        """Fetch many, some of them ahead, and yield them in order.

        Args:
            uris: What to fetch.

        Yields:
            Content, or the error that says why not; None where the URI is None.
        """
        remote = has_scheme(self.base) or any(uri is not None and has_scheme(uri) for uri in uris)
        if not remote:  # a disk gains nothing from threads
            yield from map(self._fetch_or_error, uris)
            return
        waiting: deque[Future[bytes | ImageError | None]] = deque()
        with ThreadPoolExecutor(self.concurrency) as pool:
            for uri in uris:
                if len(waiting) == self.concurrency:  # bounds what is in memory, too
                    yield waiting.popleft().result()
                waiting.append(pool.submit(self._fetch_or_error, uri))
            while waiting:
                yield waiting.popleft().result()

    def _fetch_or_error(self, uri: str | None) -> bytes | ImageError | None:
        try:
            return None if uri is None else self.fetch(uri)
        except ImageError as error:
            return error

    def _read(self, target: str) -> bytes:
        if not has_scheme(target):
            path = Path(target)
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # a folder, or a pipe that never ends
                raise ImageError(Status.UNSUPPORTED, "not a regular file")
            self._check_size(found.st_size)
            return path.read_bytes()
        fs, path_on_fs = fsspec.core.url_to_fs(target)
        if getattr(fs, "async_impl", False):
            data = bytes(sync(fs.loop, fs._cat_file, path_on_fs, timeout=self.timeout))
        else:
            data = bytes(fs.cat_file(path_on_fs))
        self._check_size(len(data))
        return data

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise ImageError(
                Status.TOO_LARGE,
                f"{size} bytes, more than the limit of {self.max_bytes}: raise --max-bytes",
            )


def _status_of(error: BaseException) -> Status:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Status.NOT_FOUND
    if isinstance(error, PermissionError):
        return Status.FORBIDDEN
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, FSTimeoutError)):
        return Status.TIMEOUT
    if isinstance(error, IsADirectoryError):
        return Status.UNSUPPORTED
    code = str(getattr(error, "status", "") or "")
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
    if isinstance(error, ValueError) and not code:  # an unknown protocol, a malformed URL
        return Status.UNSUPPORTED
    return _CODES.get(code, Status.NETWORK)
