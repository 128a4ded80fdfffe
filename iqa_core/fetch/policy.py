"""Decides what a manifest may name, from text and address alone; nothing is opened here.

Follows OWASP, "Server-Side Request Forgery Prevention Cheat Sheet".
"""

from __future__ import annotations

import ipaddress
import posixpath
import socket
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.uri import is_http

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DEFAULT_SCHEMES",
    "LOCAL_SCHEMES",
    "check_address",
    "check_literal",
    "is_below_any",
    "is_fixed",
    "looks_public",
    "without_file_scheme",
]

#: Schemes that a manifest may name by default. Local files too, if the manifest itself is local.
DEFAULT_SCHEMES = (
    *("http", "https", "s3", "s3a", "gs", "gcs", "hf"),
    *("az", "abfs", "abfss", "adl", "oci", "r2", "memory"),
)
LOCAL_SCHEMES = ("file", "local")

#: Last labels of names that no public DNS knows: RFC 6761, RFC 6762, RFC 8375, ICANN's reserved and
#: refused ones, and what routers and clouds use.
_PRIVATE_DOMAINS = frozenset(
    {"localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan"}
    | {"arpa", "onion"}
)


def is_fixed(url: str) -> bool:
    """Return whether a URL's host is independent of DNS: an address or localhost."""
    host = (urlsplit(url).hostname or "").partition("%")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def without_file_scheme(uri: str) -> str:
    """Return the path of a ``file:`` or ``local:`` URI that has an absolute one; others as they are."""
    for scheme in LOCAL_SCHEMES:
        if uri.lower().startswith(f"{scheme}:/") and "::" not in uri:
            path = uri[len(scheme) + 1 :]
            if path.lower().startswith("//localhost/"):  # RFC 8089: this machine
                path = path[len("//localhost") :]
            return "/" + path.lstrip("/")
    return uri


def is_below_any(uri: str, prefixes: Sequence[str]) -> bool:
    """Return whether a URI or path is one of the prefixes or lies below one, as folders do."""
    if not prefixes or ("::" in uri and not is_http(uri)):
        return False
    place = _normal(uri)
    return any(_lies_below(place, _normal(without_file_scheme(prefix))) for prefix in prefixes)


def check_literal(host: str) -> None:
    """Refuse private addresses as the host, also in forms such as 2130706433 or 127.1.

    Raises:
        ImageError: ``denied``.
    """
    try:
        check_address(socket.inet_ntoa(socket.inet_aton(host)), host)
    except OSError:  # a name or IPv6
        if ":" in host:
            check_address(host)


def check_address(address: str, host: str | None = None) -> None:
    """Refuse an address that is not one of the public internet.

    Args:
        address: IPv4 or IPv6.
        host: The host that resolved to it, for the message.

    Raises:
        ImageError: ``denied``.
    """
    if not _is_public(address):
        name = f"{host} is {address}" if host not in (None, address) else f"is {address}"
        raise ImageError(
            Status.DENIED,
            f"the host {name}, which is not on the public internet: allow it by --allow-prefix",
        )


def looks_public(host: str) -> bool:
    """Return whether a name could be one of the public DNS: a domain, and none that is reserved."""
    *domain, last = host.lower().removesuffix(".").split(".")
    return bool(domain) and not last.isdecimal() and last not in _PRIVATE_DOMAINS


def _normal(uri: str) -> str:
    """Return a URI with its path normalised, so that `..` can't lead out of a prefix unseen."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return posixpath.normpath(uri) + ("/" if uri.endswith("/") else "")
    host, _, path = rest.partition("/")
    path = unquote(path.partition("?")[0].partition("#")[0]).replace("\\", "/")
    normal = posixpath.normpath("/" + path).lstrip("/")
    return f"{scheme.lower()}://{host.lower() if scheme.lower() in ('http', 'https') else host}/{normal}"


def _lies_below(place: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return place == prefix or place.startswith(f"{prefix}/")


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
