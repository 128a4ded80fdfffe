"""AVIF and JPEG 2000, which consist of boxes: removes metadata that makes their decoders fail.

libavif refuses a file whose EXIF data are invalid, OpenJPEG a file with a box of more than 1 MB before
the pixels, Pillow a file whose resolution it can't read. The boxes: ISO/IEC 14496-12 (AVIF),
15444-1 annex I (JPEG 2000).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["avif_without_metadata", "jpeg2000_without_metadata"]

_CODESTREAM = b"\xffO\xffQ"
_OF_PIXELS = {b"jP  ", b"ftyp", b"jp2h", b"jp2c"}
_OF_HEADER = {b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef"}

#: An entry of the list of items, of version 2 or 3: flags, number and protection of the item, type.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{5}|\x03.{7}).{2})Exif", re.DOTALL)


class _Box(NamedTuple):
    kind: bytes
    start: int
    content: int  # where its content begins
    end: int


def avif_without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return an AVIF whose EXIF data are an item of unknown type, so that decoders ignore them.

    The orientation is not lost: AVIF stores it outside of the EXIF data.
    """
    for box in _boxes(data, 0, len(data)):
        if box.kind == b"meta":
            meta = _EXIF_ITEM.sub(rb"\1none", data[box.start : box.end])
            return data[: box.start] + meta + data[box.end :], {}
    return data, {}


def jpeg2000_without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a JPEG 2000 file with the boxes that its pixels need; a bare codestream as it is."""
    if data.startswith(_CODESTREAM):
        return data, {}
    kept = []
    for box in _boxes(data, 0, len(data)):
        if box.kind == b"jp2h":
            inner = _boxes(data, box.content, box.end)
            parts = [data[part.start : part.end] for part in inner if part.kind in _OF_HEADER]
            size = 8 + sum(map(len, parts))
            kept += [struct.pack(">I", size), b"jp2h", *parts]
        elif box.kind in _OF_PIXELS:
            kept.append(data[box.start : box.end])
        if box.kind == b"jp2c":
            return b"".join(kept), {}
    return data, {}  # Pillow's error names what is missing


def _boxes(data: bytes, place: int, end: int) -> Iterator[_Box]:
    """Yield the boxes in a part of the file, as far as they lie within it."""
    while place + 8 <= end:
        size, content = int.from_bytes(data[place : place + 4], "big"), place + 8
        if size == 1:
            size, content = int.from_bytes(data[place + 8 : place + 16], "big"), place + 16
        elif size == 0:
            size = end - place
        if content > place + size or place + size > end:
            return
        yield _Box(data[place + 4 : place + 8], place, content, place + size)
        place += size
