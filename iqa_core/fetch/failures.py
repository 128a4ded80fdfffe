"""Maps the exceptions of filesystems and libraries to a status and a message of one line."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from fsspec.exceptions import FSTimeoutError

from iqa_core.errors import ImageError, Status
from iqa_core.redaction import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_image_error", "local_error", "may_pass", "passes_locally", "status_of"]

_TRANSIENT = {Status.THROTTLED, Status.TIMEOUT, Status.NETWORK}
#: HTTP's codes, those of S3, and names of exceptions. Of HTTP's, any other 4xx is a refusal, too.
_CODES = {
    "404": Status.NOT_FOUND,
    "408": Status.TIMEOUT,
    "410": Status.NOT_FOUND,
    "414": Status.INVALID_ROW,
    "425": Status.THROTTLED,
    "429": Status.THROTTLED,
    "503": Status.THROTTLED,
    "AccessDenied": Status.FORBIDDEN,
    "BadZipFile": Status.UNSUPPORTED,
    "KeyTooLongError": Status.INVALID_ROW,
    "NoCredentialsError": Status.FORBIDDEN,
    "NoSuchBucket": Status.NOT_FOUND,
    "NoSuchKey": Status.NOT_FOUND,
    "ParamValidationError": Status.INVALID_ROW,  # a bucket's name that can't be one, an empty key
    "RequestTimeout": Status.TIMEOUT,
    "SlowDown": Status.THROTTLED,
}

#: Of local files. Any other is ``forbidden``: the file is there, but this machine can't give it.
_ERRNOS = {
    errno.ENOENT: Status.NOT_FOUND,
    errno.ENOTDIR: Status.NOT_FOUND,
    errno.EISDIR: Status.UNSUPPORTED,
    errno.ELOOP: Status.INVALID_ROW,
    errno.ENAMETOOLONG: Status.INVALID_ROW,
    errno.EINVAL: Status.INVALID_ROW,
    errno.EILSEQ: Status.INVALID_ROW,
    errno.ETIMEDOUT: Status.TIMEOUT,
}
_REASONS = {
    errno.ELOOP: "a loop of symbolic links",
    errno.ENAMETOOLONG: "too long for a path of this machine",
}
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def may_pass(failure: ImageError) -> bool:
    """Return whether a further attempt makes sense."""
    return failure.status in _TRANSIENT


def passes_locally(error: OSError) -> bool:
    """Return whether opening a local file is worth a retry, such as after a stale NFS handle."""
    return error.errno in _PASSING


def as_image_error(error: Exception) -> ImageError:
    """Convert an exception of a remote filesystem to the row's failure."""
    if isinstance(error, ImageError):
        return error
    text = one_line(str(error)) or "no further message"
    failure = ImageError(status_of(error), f"{type(error).__name__}: {text}"[:300])
    failure.__cause__ = error
    return failure


def local_error(path: str, error: Exception) -> ImageError:
    """Convert an exception of a local file to the row's failure, which is never ``network``."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError):
        failure = ImageError(Status.TOO_LARGE, f"this machine has no memory for {shown(path)}")
    elif number is None:  # a name that this machine's encoding can't express, a NUL
        failure = ImageError(Status.INVALID_ROW, f"{shown(path)} can't be a path: {error}")
    else:
        reason = _REASONS.get(number) or os.strerror(number)
        status = _ERRNOS.get(number, Status.FORBIDDEN)
        failure = ImageError(status, f"{reason}: {shown(path)}")
    failure.__cause__ = error
    return failure


def status_of(error: BaseException) -> Status:
    """Return the status for an exception of a remote filesystem."""
    import aiohttp  # in a worker at its first failure, not at its start

    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Status.NOT_FOUND
    if isinstance(error, PermissionError):
        return Status.FORBIDDEN
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, FSTimeoutError)):
        return Status.TIMEOUT
    if isinstance(error, (IsADirectoryError, ImportError)):  # or the scheme's library is missing
        return Status.UNSUPPORTED
    if isinstance(error, MemoryError):
        return Status.TOO_LARGE
    if isinstance(error, aiohttp.InvalidURL):
        return Status.INVALID_ROW
    for code in _codes_of(error):
        if code in _CODES:
            return _CODES[code]
        if len(code) == 3 and code.startswith("4") and code.isdecimal():
            return Status.FORBIDDEN
    if isinstance(error, ValueError):  # an unknown protocol, a malformed URL
        return Status.UNSUPPORTED
    return Status.NETWORK


def _codes_of(error: BaseException) -> Iterator[str]:
    """Yield the error codes and names of a failure, from the most to the least specific."""
    from aiohttp import ClientPayloadError
    from aiohttp.http_exceptions import HttpProcessingError

    cause: BaseException | None = error
    while cause is not None:  # s3fs raises an OSError from botocore's error
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            yield str(response.get("Error", {}).get("Code", ""))
            yield str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        yield str(getattr(response, "status_code", ""))  # huggingface_hub
        # aiohttp, gcsfs; but a broken answer has a code of aiohttp's own, 400, and no server's
        if not isinstance(cause, (ClientPayloadError, HttpProcessingError)):
            status = getattr(cause, "status", None)
            yield str(getattr(cause, "code", "") if status is None else status)
        yield type(cause).__name__
        cause = cause.__cause__
