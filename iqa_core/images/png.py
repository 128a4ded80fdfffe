"""PNG: verifies checksums, and drops metadata before Pillow reads the file.

Pillow verifies the checksums (CRC) of the chunks in front of the pixels but not those of the pixel
data, takes pixel data that end early as black rows, and refuses files whose text or ICC profile is
large. The format: https://www.w3.org/TR/png-3/

A checksum counts if its chunk decides about pixels as they are read here: IHDR, PLTE, IDAT and tRNS.
gAMA, cHRM, sRGB, iCCP, cICP and sBIT are ignored, damaged or not, as all colour profiles are; so are
text, the frames of an animation behind the default image, and whatever follows IEND.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image

from iqa_core.errors import ImageError, Status

__all__ = ["SIGNATURE", "check_rows", "without_metadata"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_OF_PIXELS = {b"IHDR", b"PLTE", b"tRNS"}  # besides IDAT
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
#: Text keys that may hold an orientation: ImageMagick's copy of the EXIF data, and XMP.
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_MAX_TEXT = 2**20  # bytes; what Pillow takes at most of a compressed text

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
#: Adam7: first column, first row, column step and row step of the seven passes.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_MANY_ROWS = 64
_PIECE = 2**18  # bytes inflated at once
_TAIL = 2**16  # bytes that Pillow hands to zlib at once


class _Chunk(NamedTuple):
    kind: bytes
    content: memoryview
    sound: bool  # whether its checksum is right; True for chunks whose checksum nobody needs


def without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a PNG file with only the chunks that its pixels need.

    The last bytes of the pixel data are in one chunk, because Pillow takes no more than a chunk at a
    time and stops at the last row: zlib verifies its checksum only if it comes along with that row.

    Args:
        data: A file that begins with ``SIGNATURE``.

    Returns:
        The file, and entries for Pillow's ``info`` that may hold the orientation.

    Raises:
        ImageError: With status ``decode_error`` if the file is cut short or a checksum is wrong, or
            ``unsupported`` if it holds a chunk that the format says is needed and that is unknown.
    """
    header: list[bytes] = []
    pixels: list[memoryview] = []
    info: dict[str, Any] = {}
    for chunk in _chunks(data):
        if not header and chunk.kind != b"IHDR":
            raise _not_first(chunk.kind)
        if chunk.kind == b"IHDR" and header:
            raise _damaged("it has two IHDR chunks")
        if chunk.kind == b"IDAT":
            pixels.append(_verified(chunk).content)
        elif chunk.kind in _OF_PIXELS and not pixels:
            header.append(_chunk_bytes(chunk.kind, [_verified(chunk).content]))
        elif chunk.kind[:1].isupper() and chunk.kind not in (b"IEND", b"PLTE"):
            _verified(chunk)  # if not, it was some other chunk once
            raise ImageError(
                Status.UNSUPPORTED, f"PNG image has a critical chunk {_name(chunk)} that is unknown"
            )
        elif chunk.sound:
            info |= _orientation_info(chunk)
    if not pixels:
        raise _damaged("it has no pixel data (IDAT chunk)")
    chunks = [_chunk_bytes(b"IDAT", part) for part in _split_tail(pixels)]
    return b"".join([SIGNATURE, *header, *chunks, _chunk_bytes(b"IEND", [])]), info


def check_rows(data: bytes, image: Image.Image) -> None:
    """Raise if the pixel data do not fit the rows, in cases that Pillow does not detect.

    Data that end early leave Pillow's image black, without an error. Data that continue after the last
    row keep zlib from its checksum; they nearly always meet a row with an unknown filter before, if
    there are many rows. So the data are inflated once more if the last row is black (zero), or if
    the rows are few or interlaced.

    Args:
        data: What ``without_metadata`` returned.
        image: Loaded from ``data``.

    Raises:
        ImageError: With status ``decode_error``.
        zlib.error: If a checksum is wrong.
    """
    header = struct.unpack_from(">IIBBBBB", data, len(SIGNATURE) + 8)
    width, height, bits, colour, _, _, interlaced = header
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if height >= _MANY_ROWS and not interlaced and any(last_row.tobytes()):
        return
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    expected = sum(_pass_size(width, height, bits * _CHANNELS[colour], *steps) for steps in passes)
    contents = [chunk.content for chunk in _chunks(data) if chunk.kind == b"IDAT"]
    if not _is_complete(contents, expected):
        raise _damaged("its pixel data end before the last row, or without a checksum")


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield all chunks, IEND last; raise if the file ends before IEND does."""
    view = memoryview(data)
    place = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length, kind = (
            int.from_bytes(view[place : place + 4], "big"),
            bytes(view[place + 4 : place + 8]),
        )
        end = place + 8 + length
        if end + 4 > len(view):
            raise ImageError(
                Status.DECODE_ERROR, "PNG image is cut short: it ends before its IEND chunk does"
            )
        if not (kind.isascii() and kind.isalpha()):
            raise _damaged(f"there is no chunk at byte {place}")
        sound = True
        if kind != b"IEND" and (kind[:1].isupper() or kind in _OF_PIXELS | _TEXT | {b"eXIf"}):
            sound = zlib.crc32(view[place + 4 : end]) == int.from_bytes(view[end : end + 4], "big")
        yield _Chunk(kind, view[place + 8 : end], sound)
        place = end + 4


def _verified(chunk: _Chunk) -> _Chunk:
    if not chunk.sound:
        raise _damaged(f"the checksum of its {_name(chunk)} chunk is wrong")
    return chunk


def _name(chunk: _Chunk) -> str:
    return chunk.kind.decode("ascii")


def _damaged(what: str) -> ImageError:
    return ImageError(Status.DECODE_ERROR, f"PNG image is damaged: {what}")


def _not_first(kind: bytes) -> ImageError:
    if kind == b"CgBI":  # Xcode's, for iOS applications: no zlib header, blue first
        return ImageError(
            Status.UNSUPPORTED, "PNG image is of Apple's own kind (CgBI): convert it to PNG first"
        )
    return _damaged("its first chunk is not IHDR")


def _chunk_bytes(kind: bytes, contents: list[memoryview]) -> bytes:
    checksum = zlib.crc32(kind)
    for content in contents:
        checksum = zlib.crc32(content, checksum)
    length = sum(len(content) for content in contents)
    return b"".join([struct.pack(">I", length), kind, *contents, struct.pack(">I", checksum)])


def _split_tail(contents: list[memoryview]) -> tuple[list[memoryview], list[memoryview]]:
    """Return the pixel data without their last ``_TAIL`` bytes, and these."""
    head, missing = list(contents), _TAIL
    tail: list[memoryview] = []
    while head and missing:
        last = head.pop()
        cut = max(0, len(last) - missing)
        tail.insert(0, last[cut:])
        missing -= len(last) - cut
        if cut:
            head.append(last[:cut])
    return head, tail


def _orientation_info(chunk: _Chunk) -> dict[str, Any]:
    """Return the entries that Pillow's ``getexif`` expects, by its names."""
    if chunk.kind == b"eXIf":
        return {"exif": b"Exif\0\0" + chunk.content}
    if chunk.kind not in _TEXT:
        return {}
    key = bytes(chunk.content[:80]).partition(b"\0")[0]
    if key not in (_RAW_EXIF, _XMP):
        return {}
    text = _text(chunk.kind, bytes(chunk.content[len(key) + 1 :]))
    if key == _XMP:
        return {"xmp": text}
    return {key.decode(): text.decode("latin-1")}


def _text(kind: bytes, rest: bytes) -> bytes:
    """Return the text behind a key; nothing if it is damaged or large when inflated."""
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]  # compression method
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # behind method, language and translated key
    if not packed:
        return rest
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(rest, _MAX_TEXT)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else text


def _pass_size(
    width: int, height: int, bits: int, left: int, top: int, across: int, down: int
) -> int:
    """Return the bytes of one pass, a filter byte in front of each row."""
    columns = max(0, (width - left + across - 1) // across)
    rows = max(0, (height - top + down - 1) // down)
    return rows * (1 + (columns * bits + 7) // 8) if columns else 0


def _is_complete(contents: list[memoryview], expected: int) -> bool:
    """Return whether a zlib stream has this many bytes; a few more are accepted, and not read."""
    stream = zlib.decompressobj()
    size = 0
    for content in contents:
        for place in range(0, len(content), _PIECE):
            piece: bytes | memoryview = content[place : place + _PIECE]
            while True:
                part = stream.decompress(piece, _PIECE)
                size += len(part)
                if stream.eof or size >= expected + _PIECE:
                    return size >= expected
                piece = stream.unconsumed_tail
                if len(part) < _PIECE:
                    break
    return False
