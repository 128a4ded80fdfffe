"""Images by URI: what may be read at all, with limits on time and bytes, and retries.

A manifest may come from someone else. So what it names is read only if it lies beside the manifest or
is allowed, and over HTTP no machine is reached that the internet can't reach, whatever names, numbers
or redirects lead there (OWASP, "Server-Side Request Forgery Prevention Cheat Sheet").
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import ipaddress
import os
import posixpath
import random
import re
import socket
import stat
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
import fsspec
from aiohttp.http_exceptions import HttpProcessingError
from fsspec.asyn import get_loop, sync
from fsspec.exceptions import FSTimeoutError

from iqa_core.files import has_scheme
from iqa_core.schema import ImageError, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["DEFAULT_MAX_BYTES", "DEFAULT_SCHEMES", "Fetcher", "redact"]

#: What a manifest may name by default. Local files too, if the manifest itself is local.
DEFAULT_SCHEMES = (
    *("http", "https", "s3", "s3a", "gs", "gcs", "hf"),
    *("az", "abfs", "abfss", "adl", "oci", "r2", "memory"),
)
DEFAULT_MAX_BYTES = 256 * 1024 * 1024

_LOCAL = ("file", "local")
_REDIRECTS = 10
_TRANSIENT = {Status.THROTTLED, Status.TIMEOUT, Status.NETWORK}
#: HTTP's codes, those of S3, and names of exceptions. Of HTTP's, any other 4xx is a refusal, too.
_CODES = {
    "404": Status.NOT_FOUND,
    "408": Status.TIMEOUT,
    "410": Status.NOT_FOUND,
    "425": Status.THROTTLED,
    "429": Status.THROTTLED,
    "503": Status.THROTTLED,
    "AccessDenied": Status.FORBIDDEN,
    "NoCredentialsError": Status.FORBIDDEN,
    "NoSuchBucket": Status.NOT_FOUND,
    "NoSuchKey": Status.NOT_FOUND,
    "RequestTimeout": Status.TIMEOUT,
    "SlowDown": Status.THROTTLED,
}

#: A part of a file, as in HTTP's Range header: how images inside tar shards are named.
_RANGE = re.compile(r"#bytes=(\d{1,18})-(\d{1,18})$")

# Passwords in URIs, queries that sign or authorise a request, and what of one is left behind a space
# or a quotation mark. Each matches in linear time: the text may be a hostile manifest's.
_USER_INFO = re.compile(r"(?<=\w://)[^/?#\s]*@")
_QUERY = re.compile(r"\?[^\s'\"]*")
_PARAMETER = re.compile(r"(?<=[?&;])[^=&;\s]{1,100}=[^&\s'\"]*")
_SECRET = re.compile(
    r"[?&;](sig|se|sp|sv|sr|st|key|key-pair-id|expires|policy|googleaccessid|jwt|hmac|hdn\w{1,9})="
    r"|[?&;][^=&;]{0,29}(signature|token|secret|passw|auth|credential|session|x-amz-|x-goog-"
    r"|(api|access|private)[-_]?key)[^=&;]{0,29}=",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text without the passwords, and without the signed queries, of the URIs in it."""
    text = _USER_INFO.sub("", text)
    text = _QUERY.sub(lambda m: "" if _SECRET.search(unquote(m[0])) else m[0], text)
    return _PARAMETER.sub(lambda m: "" if _SECRET.search("&" + unquote(m[0])) else m[0], text)


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
        """Return the absolute path or URI of a manifest's entry.

        Raises:
            ImageError: ``denied`` if it may not be read.
        """
        local = not has_scheme(self.base)
        uri = _without_file_scheme(uri) if local or self.prefixes else uri
        if not has_scheme(uri) and not uri.startswith(("/", *(f"{name}:" for name in _LOCAL))):
            if local:
                uri = str(Path(self.base, uri))
                return uri if not self.prefixes else self._check_prefixes(uri)
            uri = f"{self.base.rstrip('/')}/{uri}"
            self._check_parents(uri)
            return uri
        if self._is_trusted(uri):
            return uri
        shown = redact(uri)
        if self.prefixes:
            return self._check_prefixes(uri)
        if not has_scheme(uri):
            if local and not uri.startswith(tuple(f"{name}:" for name in _LOCAL)):
                return uri
            raise ImageError(
                Status.DENIED,
                f"{shown} is a local file, but the manifest is not: allow it by --allow-prefix",
            )
        self._check_schemes(uri, shown)
        return uri

    def _check_prefixes(self, uri: str) -> str:
        if not self._is_trusted(uri):
            raise ImageError(Status.DENIED, f"{redact(uri)} begins with none of --allow-prefix")
        return uri

    def _check_schemes(self, uri: str, shown: str) -> None:
        parts = [uri] if _is_http(uri) else uri.split("::")
        for part in parts:
            scheme = part.partition("://")[0].lower()
            if scheme not in self.schemes:
                raise ImageError(
                    Status.DENIED,
                    f"the scheme {redact(scheme)!r} of {shown} is not among --allow-scheme",
                )
            if len(parts) > 1 and scheme in ("http", "https"):
                # fsspec would fetch it, from whatever address.
                raise ImageError(
                    Status.DENIED, f"{shown} chains to a URL of HTTP: fetch that first"
                )

    def _check_parents(self, uri: str) -> None:
        if ".." in unquote(uri).replace("\\", "/").split("/"):
            raise ImageError(Status.DENIED, f"{redact(uri)} leads out of the manifest's folder")

    def _is_trusted(self, uri: str) -> bool:
        """Return whether it lies in the manifest's folder or below an allowed prefix."""
        own = (self.base,) if self.prefixes or has_scheme(self.base) else ()
        prefixes = (*self.prefixes, *own)
        return _is_below_any(uri, prefixes)

    def _may_be_private(self, url: str) -> bool:
        """Return whether a URL may lead to a machine that the internet does not reach."""
        own = (self.base,) if _is_http(self.base) and _is_fixed(self.base) else ()
        return _is_below_any(url, (*self.prefixes, *own))

    def fetch(self, uri: str) -> bytes:
        """Return one file's content.

        Raises:
            ImageError: With the status that says why not.
        """
        target = self.resolve(uri)
        for attempt in range(self.retries + 1):
            try:
                return self._read(target)
            except ImageError as error:
                if error.status not in _TRANSIENT or attempt == self.retries:
                    raise
            except Exception as error:  # filesystems raise whatever they like
                status = _status_of(error)
                if status not in _TRANSIENT or attempt == self.retries:
                    text = redact(" ".join(str(error).split())) or "no further message"
                    raise ImageError(status, f"{type(error).__name__}: {text}"[:300]) from error
            time.sleep(random.uniform(0.5, 1.0) * min(8.0, 0.25 * 2**attempt))  # noqa: S311 - jitter
        raise RuntimeError("the last attempt returns or raises")

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
        # A pool of the process, not of this call: ending a pool waits for its threads, and an
        # abandoned generator would do that whenever and in whichever thread it is collected.
        pool = _pool(self.concurrency)
        waiting: deque[Future[bytes | ImageError | None]] = deque()
        for uri in uris:
            if len(waiting) == self.concurrency:  # bounds what is in memory, too
                yield waiting.popleft().result()
            waiting.append(pool.submit(self._fetch_or_error, uri))
        while waiting:
            yield waiting.popleft().result()

    def within_limit(self, data: bytes) -> bytes | ImageError:
        """Return an image that was inside the manifest, or the error that says that it is too large."""
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
            if part[1] == part[0]:  # an empty member of a shard; no request can ask for that
                return b""
            data = self._read_part(target, *part)
            if len(data) != part[1] - part[0]:
                raise ImageError(
                    Status.NOT_FOUND, f"there are no bytes {part[0]} to {part[1] - 1} in the file"
                )
            return data
        if not has_scheme(target):
            with _open_regular(target) as file:
                self._check_size(os.fstat(file.fileno()).st_size)
                data = file.read(self.max_bytes + 1)  # it may grow
                self._check_size(len(data))
                return data
        if _is_http(target):
            content: bytes = sync(get_loop(), self._read_http, target, timeout=self.timeout)
            return content
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

    def _read_part(self, target: str, start: int, stop: int) -> bytes:
        if not has_scheme(target):
            with _open_regular(target) as file:
                file.seek(start)
                return file.read(stop - start)
        if _is_http(target):
            span = (start, stop)
            content: bytes = sync(get_loop(), self._read_http, target, span, timeout=self.timeout)
            return content
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

    async def _read_http(self, url: str, span: tuple[int, int] | None = None) -> bytes:
        """Read a URL, or the bytes from ``span[0]`` up to ``span[1]``."""
        headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        for _ in range(_REDIRECTS):
            private = self._may_be_private(url)
            if not private:
                _check_number(urlsplit(url).hostname or "")
            session = _session(private=private)
            async with session.get(url, allow_redirects=False, headers=headers) as answer:
                if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                    url = urljoin(url, answer.headers["Location"])
                    if not _is_http(url):
                        raise ImageError(Status.DENIED, f"it redirects to {redact(url)}: not HTTP")
                    continue
                answer.raise_for_status()
                if span and answer.status != 206:
                    raise ImageError(Status.UNSUPPORTED, "the server does not serve byte ranges")
                self._check_size(answer.content_length or 0)
                content = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 20):
                    content += chunk
                    self._check_size(len(content))
                return bytes(content)
        raise ImageError(Status.NETWORK, f"more than {_REDIRECTS} redirects")

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise ImageError(
                Status.TOO_LARGE, f"more than {self.max_bytes} bytes: raise --max-bytes to allow it"
            )


def _is_http(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def _is_fixed(url: str) -> bool:
    """Return whether a URL's host is the same machine tomorrow, whatever DNS says."""
    host = (urlsplit(url).hostname or "").partition("%")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _within(seconds: float, action: Callable[[], bytes]) -> bytes:
    """Do something with a filesystem that knows no time-outs; what hangs is left behind."""
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


def _open_regular(path: str) -> BinaryIO:
    """Open a file of this machine, unless it is a folder, or a pipe that never ends."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError(Status.UNSUPPORTED, "not a regular file")
    return open(path, "rb")


def _without_file_scheme(uri: str) -> str:
    for scheme in _LOCAL:
        if uri.lower().startswith(f"{scheme}:/") and "::" not in uri:
            path = uri[len(scheme) + 1 :]
            return "/" + path.lstrip("/") if path.startswith(("///", "/")) else uri
    return uri


def _normal(uri: str) -> str:
    """Return a URI with its path normalised, so that `..` can't lead out of a prefix unseen."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return posixpath.normpath(uri) + ("/" if uri.endswith("/") else "")
    host, _, path = rest.partition("/")
    path = unquote(path.partition("?")[0].partition("#")[0]).replace("\\", "/")
    normal = posixpath.normpath("/" + path).lstrip("/")
    return f"{scheme.lower()}://{host.lower() if scheme.lower() in ('http', 'https') else host}/{normal}"


def _is_below_any(uri: str, prefixes: Sequence[str]) -> bool:
    if not prefixes or ("::" in uri and not _is_http(uri)):
        return False
    place = _normal(uri)
    return any(_lies_below(place, _normal(_without_file_scheme(prefix))) for prefix in prefixes)


def _lies_below(place: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return place == prefix or place.startswith(f"{prefix}/")


def _refuse_private(info: Any) -> socket.socket:  # noqa: ANN401 - aiohttp's AddrInfoType
    """Open a socket for an address of the public internet, or refuse it (after DNS)."""
    family, kind, protocol, _, address = info
    if not _is_public(address[0]):
        raise ImageError(
            Status.DENIED,
            f"the host is {address[0]}, which is not on the public internet: allow it by "
            "--allow-prefix",
        )
    return socket.socket(family=family, type=kind, proto=protocol)


def _check_number(host: str) -> None:
    """Refuse private addresses that are written as numbers, such as 2130706433 or 127.1."""
    try:
        address = socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return  # a name, or IPv6: both are checked once they are resolved
    if not _is_public(address):
        raise ImageError(
            Status.DENIED,
            f"the host {host} is {address}, which is not on the public internet: allow it by "
            "--allow-prefix",
        )


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        # IPv4 in disguise: mapped, 6to4, Teredo, and NAT64's prefixes.
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in ipaddress.ip_network("64:ff9b::/32"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not _is_public(str(inner)):
            return False
    return found.is_global and not found.is_multicast


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fetch")


_SESSIONS: dict[tuple[int, bool], aiohttp.ClientSession] = {}


def _session(*, private: bool) -> aiohttp.ClientSession:
    """Return this process's session, which keeps connections open; called in fsspec's loop."""
    key = (id(asyncio.get_running_loop()), private)
    if key not in _SESSIONS:
        guard = None if private else _refuse_private
        connector = aiohttp.TCPConnector(limit=64, socket_factory=guard)
        # Nothing of the environment: neither proxies nor the credentials of ~/.netrc.
        if not _SESSIONS:
            atexit.register(_close_sessions)
        _SESSIONS[key] = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            auto_decompress=False,
            headers={"User-Agent": "distributed-iqa", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
    return _SESSIONS[key]


def _close_sessions() -> None:
    """Close connections at the end of the process, while fsspec's thread still runs."""
    for session in _SESSIONS.values():
        with suppress(Exception):  # the process ends anyway
            sync(get_loop(), session.close, timeout=1)
    _SESSIONS.clear()


def _status_of(error: BaseException) -> Status:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Status.NOT_FOUND
    if isinstance(error, PermissionError):
        return Status.FORBIDDEN
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, FSTimeoutError)):
        return Status.TIMEOUT
    if isinstance(error, IsADirectoryError):
        return Status.UNSUPPORTED
    for code in _codes_of(error):
        if code in _CODES:
            return _CODES[code]
        if len(code) == 3 and code.startswith("4") and code.isdecimal():
            return Status.FORBIDDEN
    if isinstance(error, ValueError):  # an unknown protocol, a malformed URL
        return Status.UNSUPPORTED
    return Status.NETWORK


def _codes_of(error: BaseException) -> Iterator[str]:
    """Yield what the libraries of stores call a failure, from the most to the least exact."""
    cause: BaseException | None = error
    while cause is not None:  # s3fs raises an OSError from botocore's error
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            yield str(response.get("Error", {}).get("Code", ""))
            yield str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        yield str(getattr(response, "status_code", ""))  # huggingface_hub
        # aiohttp, gcsfs; but a broken answer has a code of aiohttp's own, 400, and no server's
        if not isinstance(cause, (aiohttp.ClientPayloadError, HttpProcessingError)):
            status = getattr(cause, "status", None)
            yield str(getattr(cause, "code", "") if status is None else status)
        yield type(cause).__name__
        cause = cause.__cause__


def host_of(uri: str | None) -> str:
    """Return what fails together: scheme and host or bucket of a URI, or nothing if it is local."""
    if uri is None or not has_scheme(uri):
        return ""
    scheme, _, rest = uri.partition("://")  # `urlsplit` refuses some, and any may come here
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme.lower()}://{host}"
