"""TIFF: recognises raw camera files, detects damage that Pillow ignores, drops metadata.

Most raw camera formats (DNG, NEF, CR2, ARW, PEF, SRW, 3FR, IIQ, ...) are TIFFs whose first picture
is a thumbnail or preview and whose photograph is sensor data in another directory. Pillow opens the
first. The format: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, TIFF/EP and DNG
for the tags of sensor data.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from iqa_core.errors import ImageError, Status

__all__ = ["RAW_ADVICE", "without_metadata"]

RAW_ADVICE = "raw camera files are not read: develop to JPEG or TIFF first"

# Tags
_NEW_SUBFILE_TYPE = 254
_SUBFILE_TYPE = 255
_WIDTH = 256
_HEIGHT = 257
_COMPRESSION = 259
_PHOTOMETRIC = 262
_STRIP_OFFSETS = 273
_ORIENTATION = 274
_SAMPLES_PER_PIXEL = 277
_ROWS_PER_STRIP = 278
_PLANAR_CONFIGURATION = 284
_TILE_WIDTH = 322
_TILE_HEIGHT = 323
_TILE_OFFSETS = 324
_SUB_DIRECTORIES = 330
_XMP = 700
_DNG_VERSION = 50706

#: The tags that Pillow and libtiff need for pixels: structure (254 to 347 with gaps), the tables of
#: old JPEG (512 to 521), YCbCr (529 to 532), WANG's and LERC's own.
_OF_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 284, 292, 293),
    *(
        317,
        318,
        319,
        320,
        321,
        322,
        323,
        324,
        325,
        326,
        327,
        328,
        332,
        334,
        338,
        339,
        340,
        341,
        347,
    ),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 32995, 32996, 32997, 50674),
}
_BYTES = {1, 7}  # types BYTE and UNDEFINED
#: Sizes of the types in bytes, by type.
_TYPE_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

_UNCOMPRESSED = 1
#: Sensor data: a colour filter array, linear raw.
_RAW_PHOTOMETRIC = {32803, 34892}
#: Sony, Epson, Samsung, Nikon, Kodak and Pentax.
_RAW_COMPRESSION = {32767, 32769, 32770, 34713, 65000, 65535}
#: What Canon and Phase One write behind the header. Not less: pixels may begin there too.
_RAW_MARK = re.compile(rb"II\*\0(\x10\0\0\0CR\x02|.{4}IIII.waR)|MM\0\*.{4}MMMMRaw", re.DOTALL)

_MAX_DIRECTORIES = 64  # that are read; a file can contain a loop of them


@dataclass(frozen=True)
class _Form:
    """Number formats of a file: byte order, and the sizes of BigTIFF or TIFF."""

    order: str
    big: bool

    def unpack(self, codes: str, data: bytes, place: int) -> tuple[int, ...]:
        if place < 0 or place + struct.calcsize(self.order + codes) > len(data):
            raise ImageError(
                Status.DECODE_ERROR,
                "TIFF image is cut short: its directory lies beyond the end of the file",
            )
        numbers: tuple[int, ...] = struct.unpack_from(self.order + codes, data, place)
        return numbers

    @property
    def offset(self) -> str:
        return "Q" if self.big else "I"

    @property
    def entry(self) -> str:
        """Tag, type, count; the value or its offset follows."""
        return "HHQ" if self.big else "HHI"

    @property
    def count(self) -> str:
        return "Q" if self.big else "H"


@dataclass(frozen=True)
class _Entry:
    tag: int
    type: int
    count: int
    place: int  # of its 12 or 20 bytes
    value_place: int

    @property
    def size(self) -> int:
        known = self.type < len(_TYPE_SIZES)
        return self.count * _TYPE_SIZES[self.type] if known else 0


@dataclass(frozen=True)
class _Directory:
    entries: dict[int, _Entry]  # by tag, the last of equal ones, as Pillow does
    next: int
    data: bytes
    form: _Form

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the integers of a tag; nothing if there are none or they lie outside of the file."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in _INTEGERS:
            return ()
        if entry.value_place + entry.size > len(self.data):
            return ()
        return self.form.unpack(
            f"{entry.count}{_INTEGERS[entry.type]}", self.data, entry.value_place
        )

    def number(self, tag: int, default: int) -> int:
        return next(iter(self.numbers(tag)), default)

    @property
    def size(self) -> tuple[int, int]:
        return self.number(_WIDTH, 0), self.number(_HEIGHT, 0)

    @property
    def is_raw(self) -> bool:
        return (
            self.number(_PHOTOMETRIC, 0) in _RAW_PHOTOMETRIC
            or self.number(_COMPRESSION, 0) in _RAW_COMPRESSION
            or _DNG_VERSION in self.entries
        )

    @property
    def is_reduced(self) -> bool:
        return bool(self.number(_NEW_SUBFILE_TYPE, 0) & 1) or self.number(_SUBFILE_TYPE, 0) == 2


def without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a TIFF with one directory, of the first picture, that holds only what its pixels need.

    Everything else stays where it is, unreachable: the new directory is written behind the end.

    Args:
        data: A file that begins with the signature of TIFF or BigTIFF.

    Returns:
        The file, and nothing for Pillow's ``info``: its TIFF reader orients by the directory's tags.

    Raises:
        ImageError: With status ``unsupported`` for a raw camera file and for any other file whose
            first picture is only a thumbnail of a larger one, or ``decode_error`` if the file is cut
            short or does not hold all of its strips or tiles.
    """
    order = "<" if data[:1] == b"I" else ">"
    form = _Form(order, big=data[2:4] in (b"+\0", b"\0+"))
    (start,) = form.unpack(form.offset, data, 8 if form.big else 4)
    first = _directory(data, start, form)
    _check_not_preview(data, first)
    if form.big and order == ">":  # which Pillow takes for TIFF
        raise ImageError(
            Status.UNSUPPORTED, "big-endian BigTIFF is not read: convert it to little-endian first"
        )
    _check_parts(first)
    return _with_directory(data, first), {}


def _directory(data: bytes, start: int, form: _Form) -> _Directory:
    """Read the directory at a byte of the file."""
    (count,) = form.unpack(form.count, data, start)
    head = struct.calcsize("=" + form.entry)
    inline = struct.calcsize("=" + form.offset)
    place = start + struct.calcsize("=" + form.count)
    end = place + count * (head + inline)
    following = form.unpack(form.offset, data, end) if end + inline <= len(data) else None
    if following is None:  # some writers leave the last offset out
        form.unpack("x", data, end - 1)
    entries = {}
    for at in range(place, end, head + inline):
        tag, kind, number = form.unpack(form.entry, data, at)
        entry = _Entry(tag, kind, number, at, at + head)
        if entry.size > inline:
            (value_place,) = form.unpack(form.offset, data, at + head)
            entry = _Entry(tag, kind, number, at, value_place)
        entries[tag] = entry
    return _Directory(entries, following[0] if following else 0, data, form)


def _others(first: _Directory) -> Iterator[tuple[bool, _Directory]]:
    """Yield whether it is a part of the first one, and the directory, for all that can be read."""
    parts = [(True, start) for start in first.numbers(_SUB_DIRECTORIES)[:_MAX_DIRECTORIES]]
    pages = [(False, first.next)]
    seen: set[int] = {0}
    while (parts or pages) and len(seen) < _MAX_DIRECTORIES:
        is_part, start = (parts or pages).pop(0)
        if start in seen:
            continue
        seen.add(start)
        try:
            directory = _directory(first.data, start, first.form)
        except ImageError:
            continue
        yield is_part, directory
        if not is_part:
            pages.append((False, directory.next))


def _check_not_preview(data: bytes, first: _Directory) -> None:
    """Raise if the first picture is not the file's main picture."""
    if _RAW_MARK.match(data) or first.is_raw:
        raise ImageError(Status.UNSUPPORTED, RAW_ADVICE)
    width, height = first.size
    for is_part, other in _others(first):
        if other.is_raw:
            raise ImageError(Status.UNSUPPORTED, RAW_ADVICE)
        larger = other.size[0] * other.size[1] > width * height
        if (is_part or first.is_reduced) and larger:
            raise ImageError(
                Status.UNSUPPORTED,
                f"the first picture of the TIFF ({width} x {height}) is a thumbnail of another "
                f"({other.size[0]} x {other.size[1]}), as in raw camera files; {RAW_ADVICE}",
            )


def _check_parts(first: _Directory) -> None:
    """Raise if uncompressed strips or tiles are too few; Pillow leaves what is missing black.

    libtiff reports it for compressed ones.
    """
    if first.number(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED:
        return
    width, height = first.size
    if _STRIP_OFFSETS in first.entries:
        tag, across, down = _STRIP_OFFSETS, width, first.number(_ROWS_PER_STRIP, height)
    else:
        tag = _TILE_OFFSETS
        across, down = first.number(_TILE_WIDTH, width), first.number(_TILE_HEIGHT, height)
    if not (width and height and across and down and tag in first.entries):
        return  # Pillow's error names what is missing
    expected = -(-width // across) * -(-height // down)
    if first.number(_PLANAR_CONFIGURATION, 1) == 2:
        expected *= first.number(_SAMPLES_PER_PIXEL, 1)
    found = first.entries[tag].count
    if found < expected:
        raise ImageError(
            Status.DECODE_ERROR,
            f"TIFF image is damaged: it lists {found} of its {expected} strips or tiles",
        )
    if 0 in first.numbers(tag):
        raise ImageError(
            Status.DECODE_ERROR, "TIFF image is damaged: a strip or tile was never written"
        )


def _with_directory(data: bytes, first: _Directory) -> bytes:
    """Return the file with a directory of the tags that pixels need behind its end."""
    form = first.form
    kept = [entry for entry in first.entries.values() if _is_needed(entry, first)]
    length = struct.calcsize("=" + form.entry + form.offset)
    start = len(data) + len(data) % 2
    head = 8 if form.big else 4  # bytes in front of the offset of the first directory
    body = head + struct.calcsize("=" + form.offset)
    return b"".join(
        [
            data[:head],
            struct.pack(form.order + form.offset, start),
            memoryview(data)[body:],
            bytes(len(data) % 2),
            struct.pack(form.order + form.count, len(kept)),
            *(data[entry.place : entry.place + length] for entry in kept),
            bytes(struct.calcsize("=" + form.offset)),
        ]
    )


def _is_needed(entry: _Entry, directory: _Directory) -> bool:
    if entry.tag == _XMP:  # may state the orientation
        end = entry.value_place + entry.size
        in_file = entry.type in _BYTES and end <= len(directory.data)
        return in_file and _ORIENTATION not in directory.entries
    return entry.tag in _OF_PIXELS
