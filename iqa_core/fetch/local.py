"""Images of local filesystems: regular files only, and a hint if a name is not found."""

from __future__ import annotations

import os
import stat
import unicodedata
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from iqa_core.errors import ImageError, Status
from iqa_core.fetch.failures import local_error, passes_locally
from iqa_core.redaction import shown
from iqa_core.storage.retry import RetryPolicy

__all__ = ["decoded_path", "open_regular", "why_not_found"]

_RETRIES = RetryPolicy(attempts=3, first_wait=0.1, jitter=0.0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str) -> BinaryIO:
    """Open a regular file; folders, pipes and devices are never opened, as some never end.

    A file whose name is the same text in another normal form of Unicode is the same file.

    Raises:
        ImageError: With the status of the failure; never ``network``.
    """
    try:
        return _open(path)
    except FileNotFoundError as error:
        variant = _normal_form(path)
        if variant is None:
            failure = local_error(path, error)
            hint = why_not_found(path)
            raise ImageError(failure.status, f"{failure}{hint}") from error
        try:
            return _open(variant)
        except (OSError, ValueError) as second:
            raise local_error(variant, second) from second
    except (OSError, ValueError) as error:
        raise local_error(path, error) from error


def _open(path: str) -> BinaryIO:
    return _RETRIES.call(
        lambda: _open_once(path),
        lambda error: isinstance(error, OSError) and passes_locally(error),
    )


def _open_once(path: str) -> BinaryIO:
    _check_regular(path, os.stat(path).st_mode)
    file = open(path, "rb", opener=_open_without_blocking)  # noqa: SIM115 - for the caller
    try:
        _check_regular(path, os.fstat(file.fileno()).st_mode)
    except ImageError:
        file.close()
        raise
    return file


def _open_without_blocking(path: str, flags: int) -> int:
    """Open as ``open`` does, but never block on a file that has become a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
        raise ImageError(Status.UNSUPPORTED, f"{shown(path)} is {kind}, not a regular file")


def decoded_path(path: str) -> str:
    """Return the local path of a ``file:`` URI's path.

    The file of that very name if there is one, else what its percent-escapes stand for, as bytes:
    that is how names are written that are no UTF-8.
    """
    if "%" not in path or os.path.lexists(path):
        return path
    decoded = os.fsdecode(unquote_to_bytes(path))
    return decoded if os.path.lexists(decoded) else path


def why_not_found(path: str) -> str:
    """Return a hint on the name of a missing file, which begins with ``; ``; else an empty text."""
    if os.path.islink(path):
        return f"; it is a link to {shown(os.readlink(path))}, which does not exist"
    slashed, bare = path.replace("\\", "/"), _without_blanks(path)
    oddities = {
        "the name has backslashes, which separate no folders here": slashed != path,
        "a name in it begins or ends with a blank (a space, say)": bare != path,
    }
    hint = "".join(f"; {oddity}" for oddity, found in oddities.items() if found)
    variants = [slashed, bare, _without_blanks(slashed)]
    if "%" in path:
        variants.append(os.fsdecode(unquote_to_bytes(path)))
    existing = next((v for v in variants if v != path and _is_there(v)), None)
    return f"{hint}; there is {shown(existing)}" if existing else hint


def _without_blanks(path: str) -> str:
    return "/".join(name.strip() for name in path.split("/"))


def _is_there(path: str) -> bool:
    return os.path.lexists(path) or _normal_form(path) is not None


def _normal_form(path: str) -> str | None:
    """Return the path of an existing file whose name is the same text, composed or decomposed."""
    if path.isascii():
        return None
    found = ""
    for name in path.split("/"):
        forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
        try:
            name = next(form for form in forms if os.path.lexists(f"{found}{form}" or "/"))
        except StopIteration:
            return None
        found += f"{name}/"
    return found.removesuffix("/")
