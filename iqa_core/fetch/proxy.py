"""The proxy that the environment names for a URL, and which hosts may be reached through it.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in capitals or not, as curl reads them.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
from yarl import URL

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.policy import check_address, check_literal, looks_public
from iqa_core.redaction import one_line

if TYPE_CHECKING:
    from iqa_core.fetch.uri import WebAddress

__all__ = ["Proxy", "basic_authorization", "check_host_behind_proxy", "proxy_for"]

_LOOKUP_SECONDS = 10.0
#: Seconds for which an answer of DNS, and the lack of one, are cached.
_KNOWN_SECONDS, _UNKNOWN_SECONDS = 60.0, 300.0
_MAX_LOOKUPS = 10_000


@dataclass(frozen=True)
class Proxy:
    """A proxy that the environment names.

    Attributes:
        url: Its scheme, host and port.
        variable: The environment variable that names it, for messages.
        authorization: Value of ``Proxy-Authorization``; empty without a password.
    """

    url: URL
    variable: str
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return how messages name it, without the password."""
        return f"the proxy {self.url.host}:{self.url.port} of {self.variable}"

    def failure(self, error: Exception) -> ImageError | None:
        """Return an error of aiohttp as a failure of the proxy; None if the proxy is not its cause."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return self.refusal(error.status, error.message)
        # Of the proxy's own address or name; what is behind a tunnel has another host.
        own = isinstance(error, aiohttp.ClientProxyConnectionError) or (
            isinstance(error, aiohttp.ClientConnectorError)
            and (error.host, error.port) == (self.url.raw_host, self.url.port)
        )
        if not own:
            return None
        return ImageError(Status.NETWORK, f"{self} can't be reached: {one_line(str(error))}")

    def refusal(self, code: int, reason: str) -> ImageError:
        """Return the failure for the proxy's own answer."""
        answer = one_line(f"{code} {reason}", 100)
        if code == 407:
            text = f"{self} wants a user and a password ({answer}): http://USER:PASSWORD@HOST:PORT"
            return ImageError(Status.FORBIDDEN, text)
        if code == 429:
            return ImageError(Status.THROTTLED, f"{self} throttles: {answer}")
        if code < 500:
            return ImageError(Status.FORBIDDEN, f"{self} refuses the connection: {answer}")
        return ImageError(Status.NETWORK, f"{self} could not connect: {answer}")


def proxy_for(address: WebAddress) -> Proxy | None:
    """Return the proxy through which a URL is to be read; None if it is to be read directly.

    Raises:
        ImageError: ``forbidden`` if the environment names a proxy that can't be used.
    """
    proxies = getproxies_environment()
    scheme = next((name for name in (address.origin.scheme, "all") if proxies.get(name)), None)
    if scheme is None or _is_bypassed(address, proxies.get("no", "")):
        return None
    variable = f"{scheme}_proxy"
    variable = variable if os.environ.get(variable) else variable.upper()
    return _parse(proxies[scheme], variable)


def _parse(text: str, variable: str) -> Proxy:
    scheme, separator, rest = text.strip().partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("http", scheme)
    # The last @: passwords are not always encoded as they should be.
    user, _, place = rest.rpartition("@")
    with suppress(ValueError):  # of yarl
        url = URL(f"{scheme}://{place.partition('/')[0]}")
        if scheme in ("http", "https") and url.host and url.port:
            return Proxy(url, variable, basic_authorization(user))
    # Not the text itself: it may hold a password in an unexpected place.
    raise ImageError(
        Status.FORBIDDEN,
        f"{variable} names no proxy that can be used: it must be http://HOST:PORT or https://HOST:PORT",
    )


def basic_authorization(user_info: str) -> str:
    """Return the header's value for ``user:password``, percent-encoded; empty for an empty text."""
    if not user_info:
        return ""
    user, _, password = user_info.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _is_bypassed(address: WebAddress, no_proxy: str) -> bool:
    """Return whether NO_PROXY names a host: a domain, an address, a network, with or without port."""
    host, port = address.host.removesuffix("."), address.origin.port
    # `*.example.org` is written as often as `.example.org`.
    entries = [entry.removeprefix("*") or "*" for entry in no_proxy.replace(",", " ").split()]
    if "*" in entries:
        return True
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return bool(proxy_bypass_environment(f"{host}:{port}", {"no": ",".join(entries)}))
    bracketed = f"[{number}]" if number.version == 6 else str(number)
    return any(
        entry in (bracketed, f"{bracketed}:{port}") or _holds(entry, number) for entry in entries
    )


def _holds(network: str, number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return number in ipaddress.ip_network(network, strict=False)
    except ValueError:  # a name
        return False


async def check_host_behind_proxy(host: str) -> None:
    """Refuse a host of a private network, as far as known here: a proxy must not be asked for it.

    The proxy resolves names by itself, so a name is resolved here only to be checked. One that this
    machine can't resolve is left to the proxy's own rules, unless it is a private name by its form.

    Raises:
        ImageError: ``denied``.
    """
    check_literal(host)
    addresses = await _addresses(host)
    for address in addresses:
        check_address(address, host)
    if not addresses and not looks_public(host):
        raise ImageError(
            Status.DENIED,
            f"the host {host} has the name of a private network, and no address here: allow it by "
            "--allow-prefix",
        )


_LOOKUPS: dict[tuple[int, str], tuple[float, asyncio.Task[list[str]]]] = {}


async def _addresses(host: str) -> list[str]:
    """Return a host's addresses, or none if it can't be resolved here; cached for a while."""
    key = (id(asyncio.get_running_loop()), host)
    now = time.monotonic()
    started, task = _LOOKUPS.get(key, (now, None))
    if task is not None and task.done():
        age = _KNOWN_SECONDS if not task.cancelled() and task.result() else _UNKNOWN_SECONDS
        task = task if now - started < age and not task.cancelled() else None
    if task is None:
        if len(_LOOKUPS) >= _MAX_LOOKUPS:
            _LOOKUPS.clear()
        task = asyncio.create_task(_look_up(host))
        _LOOKUPS[key] = (now, task)
    # Others wait for the same lookup: whoever gives up must not end it.
    return await asyncio.shield(task)


async def _look_up(host: str) -> list[str]:
    lookup = asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.wait_for(lookup, _LOOKUP_SECONDS)
    except (OSError, UnicodeError):  # unknown, no DNS, or no time left
        return []
    return sorted({str(address[0]) for *_, address in found})
