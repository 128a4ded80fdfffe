"""Reads HTTP URLs: as written, through the environment's proxy, and never from private hosts.

Every connection is made to an address that was checked after DNS, and every redirect is checked as
the first URL was.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import aiohttp
from fsspec.asyn import get_loop, sync
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.http import HTTPFileSystem

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.failures import as_image_error
from iqa_core.fetch.policy import check_address, check_literal
from iqa_core.fetch.proxy import basic_authorization, check_host_behind_proxy, proxy_for
from iqa_core.fetch.uri import WebAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from yarl import URL

    from iqa_core.fetch.proxy import Proxy

__all__ = ["HttpFiles", "HttpReader"]

_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
#: Where the environment names certificates that are trusted besides OpenSSL's own, which
#: SSL_CERT_FILE and SSL_CERT_DIR replace.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class HttpReader:
    """Reads URLs.

    Attributes:
        may_be_private: Whether a URL may lead to a machine that the internet does not reach.
        check_size: Raises if a number of bytes is too large.
        timeout: Seconds for one URL with its redirects.
    """

    may_be_private: Callable[[str], bool]
    check_size: Callable[[int], None]
    timeout: float

    def read(self, url: str, span: tuple[int, int] | None = None) -> bytes:
        """Read a URL, or the bytes from ``span[0]`` up to ``span[1]``.

        Raises:
            ImageError: ``denied``, ``invalid_row``, ``forbidden``, ``network``, ...
            Exception: Whatever aiohttp raises.
        """
        address = WebAddress.of(url)
        try:
            content: bytes = sync(get_loop(), self._follow, address, span, timeout=self.timeout)
        except FSTimeoutError as error:
            proxy = proxy_for(address)
            through = f", through {proxy}" if proxy else ""
            raise ImageError(
                Status.TIMEOUT, f"no whole answer within {self.timeout:g} s{through}"
            ) from error
        return content

    async def _follow(self, address: WebAddress, span: tuple[int, int] | None) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            proxy = proxy_for(address)
            private = self.may_be_private(address.text)
            if not private:
                check_literal(address.host)
                if proxy:
                    await check_host_behind_proxy(address.host)
            kind = "proxy" if proxy else "private" if private else "public"
            try:
                answer = await self._request(_session(kind), address, proxy, span)
            except aiohttp.ClientError as error:
                failure = proxy and proxy.failure(error)
                if failure:
                    raise failure from error
                raise _with_proxy(error, proxy) from error
            if isinstance(answer, bytes):
                return answer
            address = address.follow(answer)
        raise ImageError(
            Status.INVALID_ROW,
            f"it leads to more than {_MAX_REDIRECTS} redirects: a loop, or a page that wants cookies",
        )

    async def _request(
        self,
        session: aiohttp.ClientSession,
        address: WebAddress,
        proxy: Proxy | None,
        span: tuple[int, int] | None,
    ) -> bytes | str:
        """Return the content, or the URL of a redirect."""
        headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        if address.credentials:
            headers["Authorization"] = basic_authorization(address.credentials)
        options = _proxy_options(proxy, address, headers)
        url = address.request_url
        async with session.get(url, allow_redirects=False, headers=headers, **options) as answer:
            if answer.status in _REDIRECTS and "Location" in answer.headers:
                return answer.headers["Location"]
            if proxy and answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                raise proxy.refusal(answer.status, answer.reason or "")
            answer.raise_for_status()
            if span and answer.status != HTTPStatus.PARTIAL_CONTENT:
                raise ImageError(Status.UNSUPPORTED, "the server does not serve byte ranges")
            self.check_size(answer.content_length or 0)
            content = bytearray()
            async for chunk in answer.content.iter_chunked(1 << 20):
                content += chunk
                self.check_size(len(content))
            return bytes(content)


def _proxy_options(
    proxy: Proxy | None, address: WebAddress, headers: dict[str, str]
) -> dict[str, Any]:
    """Return aiohttp's options for a proxy; its password is sent to the proxy only.

    To the proxy itself in the request if it forwards that, else in the one for a tunnel.
    """
    if proxy is None:
        return {}
    authorization = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    if address.origin.scheme == "http":
        headers |= authorization
        return {"proxy": proxy.url}
    return {"proxy": proxy.url, "proxy_headers": authorization}


def _with_proxy(error: aiohttp.ClientError, proxy: Proxy | None) -> Exception:
    """Return a failure whose message names the proxy, which may be its cause."""
    failure = as_image_error(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        hint = "if its certificate authority is your own, name that in SSL_CERT_FILE"
        return ImageError(Status.FORBIDDEN, f"{failure}: {hint}")
    return ImageError(failure.status, f"{failure}, through {proxy}") if proxy else failure


# Sessions -----------------------------------------------------------------------------------------

_SESSIONS: dict[tuple[int, str, tuple[str | None, ...]], aiohttp.ClientSession] = {}


def _session(kind: str) -> aiohttp.ClientSession:
    """Return this process's session, which keeps connections open; called in fsspec's loop.

    Args:
        kind: ``public`` connects to addresses of the internet only, ``private`` to any, ``proxy`` to
            any, too: the operator chose the proxy's address.
    """
    files = _ca_files()
    key = (id(asyncio.get_running_loop()), kind, files)
    if key not in _SESSIONS:
        guard = _refuse_private if kind == "public" else None
        if not _SESSIONS:
            atexit.register(_close_sessions)
        _SESSIONS[key] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64, socket_factory=guard, ssl=_ssl_context(files)),
            # aiohttp's own proxy support has no checks, and reads passwords from ~/.netrc.
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


def _refuse_private(info: Any) -> socket.socket:  # noqa: ANN401 - aiohttp's AddrInfoType
    """Open a socket for an address of the public internet, or refuse it (after DNS)."""
    family, kind, protocol, _, address = info
    check_address(address[0])
    return socket.socket(family=family, type=kind, proto=protocol)


def _ca_files() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", *_CA_VARIABLES))


@functools.cache
def _ssl_context(files: tuple[str | None, ...]) -> ssl.SSLContext:
    """Return the certificates that are trusted: OpenSSL's, and those that the environment names."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    for variable, name in zip(_CA_VARIABLES, files[-len(_CA_VARIABLES) :], strict=True):
        if not name:
            continue
        try:
            if Path(name).is_dir():
                context.load_verify_locations(capath=name)
            else:
                context.load_verify_locations(cafile=name)
        except OSError as error:  # also ssl.SSLError
            raise ImageError(
                Status.FORBIDDEN, f"{variable} names {name}, which holds no certificates: {error}"
            ) from error
    return context


# Manifests over HTTP ------------------------------------------------------------------------------


async def _client(**options: Any) -> aiohttp.ClientSession:  # noqa: ANN401 - aiohttp's
    options |= {"trust_env": True, "requote_redirect_url": False}
    connector = aiohttp.TCPConnector(ssl=_ssl_context(_ca_files()))
    return aiohttp.ClientSession(connector=connector, **options)


class HttpFiles(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's filesystem for manifests that a user names: URLs as written, through the proxy.

    Which hosts it connects to is not checked: the command line is trusted, a manifest's rows are not.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - fsspec's
        super().__init__(**{"get_client": _client} | options)

    def encode_url(self, url: str) -> URL:
        """Return a URL as it is sent."""
        address = WebAddress.of(url)
        user, _, password = address.credentials.partition(":")
        request_url = address.request_url
        if not user:
            return request_url
        return request_url.with_user(unquote(user)).with_password(unquote(password))
