"""Checks of URIs, with the reason why a text can't be one, and URLs as they are sent (RFC 3986).

A signature may cover a URL as it is written, so a URL is sent byte for byte. Only characters that a
request line can't hold are percent-encoded: blanks, non-ASCII, and a ``%`` that begins no escape.
"""

from __future__ import annotations

import ipaddress
import re
import string
from dataclasses import dataclass, field
from urllib.parse import quote

from yarl import URL

from iqa_core.errors import ImageError, Status
from iqa_core.redaction import shown

__all__ = [
    "MAX_CHARACTERS",
    "WebAddress",
    "check_text",
    "host_of",
    "is_http",
    "trimmed",
    "why_no_uri",
]

#: Of a URI; servers take 8 to 16 thousand.
MAX_CHARACTERS = 64 * 1024

_TO_IMAGE_COLUMN = "put the image's bytes into a column named image"
#: Texts that are no URI, by their form, and what to do. Each pattern takes linear time.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), reason)
    for pattern, reason in (
        (
            r"data:(\w+/[\w.+-]+([;,:]|$)|[;,]|$)",
            f"is a data: URI, which holds the image itself: {_TO_IMAGE_COLUMN}",
        ),
        (r"b(['\"]).*\1$", f"is the text of Python bytes: {_TO_IMAGE_COLUMN}"),
        (
            r"(\{\s*(['\"].*)?\}|\[\s*(['\"{\[\d].*)?\])$",
            "is a list or object (JSON or Python), not a URI: give one URI a row",
        ),
        (r"<.*>$", "is the text of an object or of a page, not a URI: give the path or URL itself"),
        (r"(['\"]).*\1$", "has quotation marks around it: remove them"),
        (r"!?\[[^\]]*\]\([^)]*\)$", "is a link in Markdown: give the URL alone"),
        (r"=\w+\(.*\)$", "is a formula of a spreadsheet: export its value"),
        (r"(nan|none|null|nat|n/?a|<na>|#n/a)$", "is the text of a missing value"),
        (
            r"/?[a-z]:[\\/](?!/)",
            "is a path of a Windows machine: give the path that the file has on the machines that read it",
        ),
        (
            r"\\\\[^\\]",
            "is a path on a Windows network: give the path that the file has on the machines that read it",
        ),
        (r"(https?|s3a?|gs|file):[\\]", "has backslashes: write / in their place"),
        (r"(https?|s3a?|gs):/?(?![/:])", "lacks a slash: write :// behind the scheme"),
        (r"(https?|s3a?|gs)//", "lacks the colon: write :// behind the scheme"),
    )
)
#: Beside a remote manifest there may be keys of such names, or they are denied as local files.
_LOCAL_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"www\.[\w-]+\.[\w.-]+/", re.IGNORECASE),
        "lacks its scheme: write https:// before it",
    ),
    (re.compile(r"//[\w-]+\.[\w.-]+/"), "is a URL without its scheme: write https: before it"),
    (re.compile(r"file:(?!/)", re.IGNORECASE), "lacks slashes: write file:///FOLDER/NAME"),
)
#: First characters of images in base64: JPEG, PNG, GIF, WebP, TIFF.
_BASE64 = re.compile(r"(/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/_=\s-]{16,}")
_BASE64_SAMPLE = 4096

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<target>[^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(
    r"((?P<user>.*)@)?(?P<host>\[[^\[\]]*\]|[^\[\]:@]*)(:(?P<port>[0-9]{0,5}))?", re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation
_INVISIBLE = "\ufeff\u200b"


def is_http(uri: str) -> bool:
    """Return whether a URI is one of HTTP."""
    return uri[:8].lower().startswith(("http://", "https://"))


def trimmed(uri: str) -> str:
    """Return a URL without the blanks around it, as browsers do; other URIs as they are.

    A blank can't be part of a URL, but of a file's name or an object's key it can.
    """
    text = uri.strip().strip(_INVISIBLE).strip()
    return text if is_http(text) else uri


def check_text(uri: str) -> None:
    """Refuse texts that can't be a URI of any kind.

    Raises:
        ImageError: ``invalid_row`` if it is empty, blank, too long or holds a NUL.
    """
    if not uri.strip():
        raise ImageError(Status.INVALID_ROW, f"the uri is {'blank' if uri else 'empty'}")
    if len(uri) > MAX_CHARACTERS:
        reason = why_no_uri(uri[:_BASE64_SAMPLE]) or f"is too long for a URI: {_TO_IMAGE_COLUMN}"
        raise ImageError(
            Status.INVALID_ROW, f"{shown(uri)} {reason} (a URI has {MAX_CHARACTERS:,} at most)"
        )
    if "\x00" in uri:
        raise ImageError(Status.INVALID_ROW, f"{shown(uri)} holds a NUL character")


def why_no_uri(uri: str, *, local: bool = False) -> str | None:
    """Return why a text is not a URI, as the rest of a sentence; None if it may be one.

    It goes by the form, so a file that is there under such a name is a file all the same.

    Args:
        uri: The text.
        local: Whether files of this machine may be named.
    """
    text = uri.strip()
    for pattern, reason in _FORMS + _LOCAL_FORMS if local else _FORMS:
        if pattern.match(text):
            return reason
    if _BASE64.fullmatch(text[:_BASE64_SAMPLE]):
        return f"is base64 text of an image: {_TO_IMAGE_COLUMN}, decoded"
    return None


@dataclass(frozen=True)
class WebAddress:
    """A URL of HTTP in the form in which it is sent.

    Attributes:
        text: As it was written.
        origin: Scheme, host (IDNA) and port.
        target: Path and query, as they go into the request line.
        credentials: User information of the URL, still percent-encoded; empty if it has none.
    """

    text: str = field(repr=False)
    origin: URL
    target: str
    credentials: str = field(default="", repr=False)

    @classmethod
    def of(cls, text: str) -> WebAddress:
        """Parse a URL.

        Raises:
            ImageError: ``invalid_row`` if it is none: no host, a bad port, a control character, ...
        """
        if found := _CONTROL.search(text):
            raise _invalid(text, f"holds the control character {found[0]!r}")
        found = _URL.match(text)
        parts = found and _AUTHORITY.fullmatch(found["authority"])
        if not found or not parts:
            raise _invalid(text, "is no URL: its host or port can't be read")
        origin = _origin(text, found["scheme"].lower(), parts["host"], parts["port"])
        target = found["target"]
        target = target if target.startswith("/") else f"/{target}"
        return cls(text, origin, _encoded(text, target), parts["user"] or "")

    @property
    def host(self) -> str:
        """The host for a DNS lookup: ASCII, IPv6 without brackets."""
        return self.origin.raw_host or ""

    @property
    def request_url(self) -> URL:
        """The URL for aiohttp, without credentials and fragment."""
        # The query is part of the path here: else yarl would drop a `?` with nothing behind it.
        return URL.build(
            scheme=self.origin.scheme,
            authority=self.origin.raw_authority,
            path=self.target,
            encoded=True,
        )

    def follow(self, location: str) -> WebAddress:
        """Return the address that a redirect from here leads to.

        Args:
            location: The header's value: absolute or relative, encoded or not.

        Raises:
            ImageError: ``denied`` if it leads to something other than HTTP, ``unsupported`` if it
                is no URL.
        """
        location = location.strip()
        text = self._joined(location)
        if not is_http(text):
            raise ImageError(Status.DENIED, f"it redirects to {shown(text)}, which is not HTTP")
        try:
            following = WebAddress.of(text)
        except ImageError as error:
            raise ImageError(
                Status.UNSUPPORTED, f"the server redirects to no valid URL: {error}"
            ) from error
        if following.origin == self.origin and not following.credentials and self.credentials:
            scheme, _, rest = text.partition("://")
            return WebAddress.of(f"{scheme}://{self.credentials}@{rest}")
        return following

    def _joined(self, location: str) -> str:
        """Resolve a reference (RFC 3986, 5.2), without any change of how it is encoded."""
        if _SCHEME.match(location):
            return location
        scheme = self.origin.scheme
        if location.startswith("//"):
            return f"{scheme}:{location}"
        start = f"{scheme}://{self.origin.raw_authority}"
        if location.startswith("/"):
            return start + location
        here = self.target.partition("?")[0]
        path = re.split(r"[?#]", location, maxsplit=1)[0]
        rest = location[len(path) :]
        if not path:
            return start + (here + rest if rest.startswith("?") else self.target)
        return start + _without_dots(here.rpartition("/")[0] + "/" + path) + rest


def _without_dots(path: str) -> str:
    """Remove the dot segments of an absolute path (RFC 3986, 5.2.4).

    Neither urllib nor yarl does that without changes elsewhere: an empty query or parameter, escapes.
    """
    kept: list[str] = []
    *folders, name = path.split("/")[1:]
    for folder in [*folders, *([name] if name in (".", "..") else [])]:
        if folder == "..":
            kept = kept[:-1]
        elif folder != ".":
            kept.append(folder)
    return "/".join(["", *kept, "" if name in (".", "..") else name])


def _origin(text: str, scheme: str, host: str, port: str | None) -> URL:
    if port and not 0 < int(port) < 65536:
        raise _invalid(text, "has no valid port: 1 to 65535")
    try:
        if host.startswith("["):
            host = host[1:-1]
            ipaddress.IPv6Address(host.partition("%")[0])
        origin = URL.build(scheme=scheme, host=host, port=int(port) if port else None)
    except ValueError as error:  # of yarl, idna and ipaddress
        raise _invalid(text, "has no host, or one that is no name or address") from error
    name = (origin.raw_host or "").removesuffix(".")
    if not name:
        raise _invalid(text, "has no host")
    if ":" not in name and (len(name) > 253 or not all(0 < len(p) < 64 for p in name.split("."))):
        raise _invalid(text, "has no valid host: a name has parts of 1 to 63 characters")
    return origin


def _encoded(text: str, target: str) -> str:
    """Percent-encode the characters that a request line can't hold."""
    try:
        # Redirects may hold bytes that are no UTF-8; aiohttp has them as surrogates.
        return quote(_LONE_PERCENT.sub("%25", target), _PRINTABLE, errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise _invalid(text, "holds characters that are no Unicode text") from error


def _invalid(text: str, reason: str) -> ImageError:
    return ImageError(Status.INVALID_ROW, f"{shown(text)} {reason}")


def host_of(uri: str | None) -> str:
    """Return scheme and host or bucket of a URI, whose images fail together; empty if it is local."""
    if uri is None or not re.search("::|://", uri):
        return ""
    # Any text may come here; `urlsplit` refuses some.
    scheme, _, rest = trimmed(uri).partition("://")
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme.lower()}://{host}"
