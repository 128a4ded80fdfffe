"""Fetches images by URI: which may be read, limits on time and bytes, retries.

A manifest may come from someone else. So what it names is read only if it lies beside the manifest or
is allowed, and over HTTP no machine is reached that the internet can't reach, whatever names, numbers
or redirects lead there.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import fsspec
from fsspec.asyn import sync

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.failures import as_image_error, local_error, may_pass
from iqa_core.fetch.local import decoded_path, open_regular
from iqa_core.fetch.policy import (
    DEFAULT_SCHEMES,
    LOCAL_SCHEMES,
    is_below_any,
    is_fixed,
    without_file_scheme,
)
from iqa_core.fetch.uri import check_text, is_http, trimmed, why_no_uri
from iqa_core.limits import DEFAULT_MAX_BYTES
from iqa_core.redaction import shown
from iqa_core.storage.folder import has_scheme
from iqa_core.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.fetch.http import HttpReader

__all__ = ["Fetcher"]

#: A part of a file, as in HTTP's Range header: how images inside tar shards are named.
_RANGE = re.compile(r"#bytes=(\d{1,18})-(\d{1,18})$")


@dataclass(frozen=True)
class Fetcher:
    """Reads images by URI. Every failure is an :class:`ImageError` with one status.

    Attributes:
        base: The manifest's folder, which relative paths are relative to.
        timeout: Seconds for one attempt at a remote file.
        retries: Further attempts after throttling, time-outs and network errors.
        max_bytes: Limit on an encoded image.
        concurrency: Files fetched at once by :meth:`stream`.
        schemes: Schemes that a manifest may name.
        prefixes: If any, only what begins with one of these may be read, and the manifest's own
            folder; in return, these may be local files or machines of a private network. The
            manifest's own folder may be on such a machine only if its host is a number or localhost:
            a name is whatever its owner's DNS says next.
    """

    base: str
    timeout: float = 30.0
    retries: int = 3
    max_bytes: int = DEFAULT_MAX_BYTES
    concurrency: int = 16
    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    prefixes: tuple[str, ...] = ()

    def resolve(self, uri: str) -> str:
        """Return the absolute path or URI for an entry of a manifest.

        Raises:
            ImageError: ``invalid_row`` if it can't be a URI, ``denied`` if it may not be read.
        """
        check_text(uri)
        uri = trimmed(uri)
        local = not has_scheme(self.base)
        if local:
            reason = why_no_uri(without_file_scheme(uri), local=True) or why_no_uri(uri, local=True)
        else:
            reason = why_no_uri(uri)
        if reason and not (local and os.path.lexists(Path(self.base, without_file_scheme(uri)))):
            raise ImageError(Status.INVALID_ROW, f"{shown(uri)} {reason}")
        if local or self.prefixes:
            uri = _local_path(uri)
        if not has_scheme(uri) and not uri.startswith(
            ("/", *(f"{name}:" for name in LOCAL_SCHEMES))
        ):
            if local:
                uri = str(Path(self.base, uri))
                return uri if not self.prefixes else self._check_prefixes(uri)
            uri = f"{self.base.rstrip('/')}/{uri}"
            self._check_parents(uri)
            return uri
        if self._is_trusted(uri):
            return uri
        if self.prefixes:
            return self._check_prefixes(uri)
        if not has_scheme(uri):
            if local and not uri.startswith(tuple(f"{name}:" for name in LOCAL_SCHEMES)):
                return uri
            raise ImageError(
                Status.DENIED,
                f"{shown(uri)} is a local file, but the manifest is not: allow it by --allow-prefix",
            )
        self._check_schemes(uri)
        return _local_path(uri)  # --allow-scheme file

    def _check_prefixes(self, uri: str) -> str:
        if not self._is_trusted(uri):
            raise ImageError(Status.DENIED, f"{shown(uri)} begins with none of --allow-prefix")
        return uri

    def _check_schemes(self, uri: str) -> None:
        parts = [uri] if is_http(uri) else uri.split("::")
        for part in parts:
            scheme = part.partition("://")[0].lower()
            if scheme not in self.schemes:
                blank = ": remove the blank before it" if scheme != scheme.lstrip() else ""
                raise ImageError(
                    Status.DENIED,
                    f"the scheme {shown(scheme)!r} of {shown(uri)} is not among --allow-scheme{blank}",
                )
            if len(parts) > 1 and scheme in ("http", "https"):
                # fsspec would fetch it, from whatever address.
                raise ImageError(
                    Status.DENIED, f"{shown(uri)} chains to a URL of HTTP: fetch that first"
                )

    def _check_parents(self, uri: str) -> None:
        if ".." in unquote(uri).replace("\\", "/").split("/"):
            raise ImageError(Status.DENIED, f"{shown(uri)} leads out of the manifest's folder")

    def _is_trusted(self, uri: str) -> bool:
        """Return whether it lies in the manifest's folder or below an allowed prefix."""
        own = (self.base,) if self.prefixes or has_scheme(self.base) else ()
        prefixes = (*self.prefixes, *own)
        return is_below_any(uri, prefixes)

    def _may_be_private(self, url: str) -> bool:
        """Return whether a URL may lead to a machine that the internet does not reach."""
        own = (self.base,) if is_http(self.base) and is_fixed(self.base) else ()
        return is_below_any(url, (*self.prefixes, *own))

    def fetch(self, uri: str) -> bytes:
        """Return one file's content.

        Raises:
            ImageError: With the status of the failure.
        """
        target = self.resolve(uri)

        def read() -> bytes:
            try:
                return self._read(target)
            except Exception as error:  # filesystems raise any type
                failure = as_image_error(error)
                raise failure from failure.__cause__

        policy = RetryPolicy(self.retries + 1, first_wait=0.25, longest_wait=8.0)
        try:
            return policy.call(read, lambda failure: may_pass(as_image_error(failure)))
        except ImageError as failure:
            raise _with_hint(failure, target) from failure.__cause__

    def stream(self, uris: Sequence[str | None]) -> Iterator[bytes | ImageError | None]:
        """Fetch many images, some of them ahead of time, and yield them in order.

        Args:
            uris: What to fetch.

        Yields:
            Content, or the error; None where the URI is None.
        """
        remote = has_scheme(self.base) or any(uri is not None and has_scheme(uri) for uri in uris)
        if not remote:  # a disk gains nothing from threads
            yield from map(self._fetch_or_error, uris)
            return
        # A pool of the process, not of this call: ending a pool waits for its threads, and an
        # abandoned generator would do that whenever and in whichever thread it is collected.
        pool = _pool(self.concurrency)
        waiting: deque[Future[bytes | ImageError | None]] = deque()
        for uri in uris:
            if len(waiting) == self.concurrency:  # also limits what is in memory
                yield waiting.popleft().result()
            waiting.append(pool.submit(self._fetch_or_error, uri))
        while waiting:
            yield waiting.popleft().result()

    def within_limit(self, data: bytes) -> bytes | ImageError:
        """Return an image that was embedded in the manifest, or the error that it is too large."""
        try:
            self._check_size(len(data))
        except ImageError as error:
            return error
        return data

    def _fetch_or_error(self, uri: str | None) -> bytes | ImageError | None:
        try:
            return None if uri is None else self.fetch(uri)
        except ImageError as error:
            return error

    def _read(self, target: str) -> bytes:
        """Read a file, or the part of it that ``#bytes=FIRST-LAST`` names."""
        target, part = _split_range(target)
        if part is not None:
            self._check_size(part[1] - part[0])
            if part[1] == part[0]:  # an empty member of a shard: no range request can express it
                return b""
            data = self._read_part(target, *part)
            if len(data) != part[1] - part[0]:
                raise ImageError(
                    Status.NOT_FOUND, f"there are no bytes {part[0]} to {part[1] - 1} in the file"
                )
            return data
        if not has_scheme(target):
            return self._read_local(target)
        if is_http(target):
            return self._http.read(target)
        fs, path_on_fs = fsspec.core.url_to_fs(target)
        if getattr(fs, "async_impl", False):
            # One byte more than the limit at most, so that a larger file is noticed, not read.
            data = self._read_range(fs, path_on_fs, 0, self.max_bytes + 1)
        else:
            data = _within(self.timeout, lambda: self._read_blocking(fs, path_on_fs))
        self._check_size(len(data))
        return bytes(data)

    def _read_blocking(self, fs: Any, path: str) -> bytes:  # noqa: ANN401
        self._check_size(int(fs.size(path) or 0))
        return bytes(fs.cat_file(path))

    def _read_local(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        with open_regular(path) as file:
            try:
                if stop is not None:
                    file.seek(start)
                    return file.read(stop - start)
                self._check_size(os.fstat(file.fileno()).st_size)
                data = file.read(self.max_bytes + 1)  # it may grow
            except (OSError, MemoryError) as error:
                raise local_error(path, error) from error
        self._check_size(len(data))
        return data

    @property
    def _http(self) -> HttpReader:
        from iqa_core.fetch.http import HttpReader  # aiohttp: a worker without HTTP needs none

        return HttpReader(self._may_be_private, self._check_size, self.timeout)

    def _read_part(self, target: str, start: int, stop: int) -> bytes:
        if not has_scheme(target):
            return self._read_local(target, start, stop)
        if is_http(target):
            return self._http.read(target, (start, stop))
        fs, path_on_fs = fsspec.core.url_to_fs(target)
        if getattr(fs, "async_impl", False):
            return self._read_range(fs, path_on_fs, start, stop)
        return _within(self.timeout, lambda: bytes(fs.cat_file(path_on_fs, start=start, end=stop)))

    def _read_range(self, fs: Any, path: str, start: int, stop: int) -> bytes:  # noqa: ANN401
        try:
            data = sync(fs.loop, fs._cat_file, path, start=start, end=stop, timeout=self.timeout)
        except OSError as error:
            # An empty object has no range at all.
            if "range" in str(error).lower() and fs.size(path) <= start:
                return b""
            raise
        return bytes(data)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise ImageError(
                Status.TOO_LARGE, f"more than {self.max_bytes} bytes: raise --max-bytes to allow it"
            )


def _local_path(uri: str) -> str:
    """Return the path of a ``file:`` URI, decoded as its escapes stand for; others as they are."""
    path = without_file_scheme(uri)
    if path == uri:
        return uri
    part = _RANGE.search(path)
    path = path[: part.start()] if part else path
    return decoded_path(path) + (part[0] if part else "")


def _with_hint(failure: ImageError, target: str) -> ImageError:
    """Add a hint on the name of a remote file that was not found; local files have theirs."""
    if failure.status != Status.NOT_FOUND or not has_scheme(target):
        return failure
    name = target.partition("?")[0] if is_http(target) else target
    odd = " and ".join(
        what
        for what, found in (
            ("a blank (space) at its end", name != name.rstrip()),
            ("backslashes, which separate no folders", "\\" in name),
        )
        if found
    )
    if not odd:
        return failure
    hinted = ImageError(failure.status, f"{failure}; the name has {odd}")
    hinted.__cause__ = failure.__cause__
    return hinted


def _within(seconds: float, action: Callable[[], bytes]) -> bytes:
    """Run an action on a filesystem without time-outs; a thread that hangs is abandoned."""
    done: Future[bytes] = Future()

    def run() -> None:
        try:
            done.set_result(action())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(timeout=seconds)


def _split_range(uri: str) -> tuple[str, tuple[int, int] | None]:
    """Split ``#bytes=FIRST-LAST`` off a URI; the range is (first, last + 1)."""
    if not (found := _RANGE.search(uri)):
        return uri, None
    start, stop = int(found[1]), int(found[2]) + 1
    if stop < start:
        raise ImageError(Status.UNSUPPORTED, f"{found[0]} ends before it begins")
    return uri[: found.start()], (start, stop)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fetch")
