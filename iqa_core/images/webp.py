"""WebP: drops metadata before libwebp reads the file, so that damage in it does not matter.

The format: https://developers.google.com/speed/webp/docs/riff_container
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iqa_core.errors import ImageError, Status

__all__ = ["without_metadata"]

_OF_PIXELS = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}  # codespell:ignore alph
_LAST = {b"VP8 ", b"VP8L", b"ANMF"}  # what follows the first of these is not shown
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP


def without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a WebP with only the chunks of its picture, or of its first frame.

    Args:
        data: A file that begins with the signature of WebP.

    Returns:
        The file, and entries for Pillow's ``info`` that may hold the orientation.

    Raises:
        ImageError: With status ``decode_error`` if the file is shorter than it states.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ImageError(
            Status.DECODE_ERROR,
            f"WebP image is cut short: it states {end:,} bytes and has {len(data):,}",
        )
    if data[12:16] != b"VP8X":
        return data[:end], {}  # a picture without metadata
    kept: list[bytes] = []
    info: dict[str, Any] = {}
    complete = False
    for kind, chunk in _chunks(data, end):
        if kind in _OF_PIXELS and not complete:
            kept.append(chunk if kind != b"VP8X" else _without_flags(chunk))
        elif kind == b"EXIF":
            info.setdefault("exif", chunk[8:])
        elif kind == b"XMP ":
            info.setdefault("xmp", chunk[8:])
        complete = complete or kind in _LAST
    size = 4 + sum(map(len, kept))
    return b"".join([b"RIFF", size.to_bytes(4, "little"), b"WEBP", *kept]), info


def _chunks(data: bytes, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind of each chunk and all of it, as far as they lie within the file.

    A chunk without a name is the end of a file that was filled up with zeros, or the like: then the
    pixels in front of it may be incomplete too.
    """
    place = 12
    while place + 8 <= end:
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if not (kind.isascii() and kind.decode().isprintable()):
            raise ImageError(
                Status.DECODE_ERROR, f"WebP image is damaged: there is no chunk at byte {place:,}"
            )
        stop = place + 8 + size + size % 2
        if stop > end + size % 2:  # some writers leave the last byte of padding out
            return
        yield kind, data[place:stop].ljust(stop - place, b"\0")
        place = stop


def _without_flags(chunk: bytes) -> bytes:
    return chunk[:8] + bytes([chunk[8] & ~_METADATA_FLAGS]) + chunk[9:] if chunk[8:9] else chunk
