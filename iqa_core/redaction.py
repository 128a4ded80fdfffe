"""Texts without secrets, in one short line: for errors, logs and outputs."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["error_line", "one_line", "redact", "shown"]

# Passwords in URIs, queries that sign or authorise a request, and what is left of such a query behind a
# space or a quotation mark. Each matches in linear time: the text may be a hostile manifest's.
_USER_INFO = re.compile(r"(?<=\w://)[^/?#\s]*@")
_QUERY = re.compile(r"\?[^\s'\"]*")
_PARAMETER = re.compile(r"(?<=[?&;])[^=&;\s]{1,100}=[^&\s'\"]*")
#: Names of parameters, and parts of such names.
_SECRET = re.compile(
    r"(^|\?)(sig|se|sp|sv|sr|st|key|key-pair-id|expires|policy|googleaccessid|jwt|hmac|hdn\w{1,9})$"
    r"|signature|token|secret|passw|auth|credential|session|x-amz-|x-goog-"
    r"|(api|access|private)[-_]?key",
    re.IGNORECASE,
)

_SHOWN_OF = 16_384
_SHOWN_START = 120
_SHOWN_END = 40


def redact(text: str) -> str:
    """Return a text without the passwords and signed queries of its URIs."""
    text = _USER_INFO.sub("", text)
    text = _QUERY.sub(lambda m: "" if _is_secret(m[0]) else m[0], text)
    return _PARAMETER.sub(lambda m: "" if _is_secret("&" + m[0]) else m[0], text)


def _is_secret(query: str) -> bool:
    """Return whether one of a query's parameters is named as secrets are, or is within a value."""
    for text in unquote(query).split("=")[:-1]:
        place = max(text.rfind("&"), text.rfind(";"))
        place = place if place >= 0 else text.find("?")
        if place >= 0 and _SECRET.search(text[place + 1 :]):
            return True
    return False


def one_line(text: str, limit: int = 300) -> str:
    """Return a text redacted, in one line of printable characters, cut after ``limit`` of them.

    Control characters and bytes that are no UTF-8 are written as escapes: the text goes to
    terminals and into Arrow's strings, which hold valid UTF-8 only.
    """
    return _printable(" ".join(redact(text).split()))[:limit]


def error_line(error: BaseException, limit: int = 300) -> str:
    """Return what an error says, as :func:`one_line`, or its type where it says nothing."""
    return one_line(str(error), limit) or type(error).__name__


def shown(uri: str) -> str:
    """Return a URI or path as messages show it: redacted, printable, a long one shortened."""
    # A megabyte takes seconds to redact. What decides about a secret stands before it.
    text = _printable(redact(uri[:_SHOWN_OF]))
    if len(uri) > _SHOWN_OF:
        return f"{text[:_SHOWN_START]}... ({len(uri):,} characters)"
    if len(text) > _SHOWN_START + _SHOWN_END:
        return f"{text[:_SHOWN_START]}...{text[-_SHOWN_END:]} ({len(uri):,} characters)"
    return text


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is no UTF-8 (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
