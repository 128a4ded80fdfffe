"""JPEG: detects damage that libjpeg conceals, and drops metadata before Pillow reads the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from iqa_core.errors import ImageError, Status

__all__ = [
    "Frame",
    "Header",
    "check_end",
    "check_markers",
    "check_scans",
    "common_frame",
    "draft",
    "read_header",
    "without_metadata",
]

Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom

_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_RESTART = range(0xD0, 0xD8)
#: Markers that stand alone: no length follows.
_STANDALONE = {0x01, *_RESTART, 0xD8, _END_OF_IMAGE}
_METADATA = {*range(0xE0, 0xF0), 0xFE}  # APP0 to APP15, comment
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_DCT_HUFFMAN = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
#: Application segments that decide about colours, from the length on from which libjpeg reads them.
_OF_COLOURS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

#: Markers among entropy-coded data, where 0xFF 0x00 stands for the byte 0xFF: those that end a stretch
#: of data, and those within.
_STOP = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTARTS = re.compile(rb"\xff([\xd0-\xd7])")
_SKIPPED = re.compile(
    rb"\xff[\x01\xd0-\xd7\xff]"
)  # what libjpeg skips between scans, and fill bytes
#: Segments that may follow a scan: tables, the next scan, the number of lines, metadata.
_BETWEEN_SCANS = {0xC4, 0xCC, _START_OF_SCAN, 0xDB, 0xDC, 0xDD, *_METADATA}

_MID_GREY = 128  # what libjpeg paints where the data ended
_ANY_DATA = bytes(range(1, 255))  # no 0xFF, with which a marker begins
#: Data for a block that has none. The restart markers are for files that use them: a decoder that
#: waits for a certain one skips everything else.
_FILLER = _ANY_DATA + b"".join(bytes([0xFF, 0xD0 + i]) + _ANY_DATA for i in range(8))


@dataclass
class Header:
    """What is in front of the first scan of a JPEG.

    Attributes:
        parts: The file without comments and application segments, except JFIF's and Adobe's.
        info: Entries for Pillow's ``info`` that may hold the orientation.
        frames: Marker and content of the frame headers; a sound file has one.
        scan: Where the first scan begins.
    """

    parts: list[memoryview] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    scan: int = 0


class Frame(NamedTuple):
    """Width and height in pixels, and the number of colour components."""

    width: int
    height: int
    components: int


def common_frame(header: Header) -> Frame | None:
    """Return the frame of an 8-bit grey or three-colour JPEG; None if it is of another kind."""
    if len(header.frames) != 1:
        return None
    marker, content = header.frames[0]
    if marker not in _DCT_HUFFMAN or len(content) < 6 or content[0] != 8:
        return None
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    frame = Frame(width, height, content[5])
    return frame if width and height and frame.components in (1, 3) else None


def without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a JPEG without comments and application segments, except JFIF's and Adobe's.

    Pillow parses all of them, and treats a segment that is too short as a damaged file.

    Returns:
        The file, and entries for Pillow's ``info`` that may hold the orientation. The file is unchanged
        if its header can't be parsed up to the first scan: Pillow reports why.
    """
    header = read_header(data)
    return (b"".join(header.parts) if header.parts else data), header.info


def read_header(data: bytes) -> Header:
    """Parse a JPEG up to its first scan.

    Returns:
        The header; without parts and frames if a segment doesn't fit the file.
    """
    view = memoryview(data)
    header = Header(parts=[view[:2]])
    place = 2
    while True:
        start = data.find(b"\xff", place)
        end = start + 1
        while data[end : end + 1] == b"\xff":  # any number of fill bytes
            end += 1
        if start < 0 or end + 3 > len(data):
            return Header(info=header.info)
        marker, length = data[end], int.from_bytes(data[end + 1 : end + 3], "big")
        if marker == _START_OF_SCAN:
            header.parts.append(view[start:])
            header.scan = start
            return header
        if marker == 0 or marker in _STANDALONE:
            place = end + 1
            continue
        place = end + 1 + length
        if length < 2 or place > len(data):
            return Header(info=header.info)
        content = data[end + 3 : place]
        if marker not in _METADATA or _decides_colours(marker, content):
            header.parts.append(view[end - 1 : place])
        elif marker == 0xE1:
            _add_orientation_info(header.info, content)
        if marker in _FRAMES:
            header.frames.append((marker, content))


def _decides_colours(marker: int, content: bytes) -> bool:
    prefix, least = _OF_COLOURS.get(marker, (b"", 0))
    return bool(prefix) and content.startswith(prefix) and len(content) >= least


def _add_orientation_info(info: dict[str, Any], content: bytes) -> None:
    """Store a segment where Pillow's ``getexif`` expects it; long EXIF data have several segments."""
    if content.startswith(_EXIF):
        info["exif"] = info["exif"] + content[len(_EXIF) :] if "exif" in info else content
    elif content.startswith(_XMP):
        info["xmp"] = content[len(_XMP) :]


def draft(image: ImageFile, wanted: Size) -> Box:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 if that is enough; return the box of the image.

    A side that is no multiple of the scale ends within the last decoded pixel, so the box is
    fractional; without it the image would be stretched by up to 7 stored pixels. HEIC's plugin
    has a ``draft`` too, which may take another picture for it, the embedded thumbnail.
    """
    drafted = image.draft(None, wanted) if isinstance(image, JpegImageFile) else None
    return (0, 0, *image.size) if drafted is None else drafted[1]


def check_end(image: ImageFile, data: bytes, scan: int, wanted: Size) -> None:
    """Raise if the JPEG stops before its last block, or if its scans have invalid markers.

    Pillow notices a file that just stops. It does not notice one whose missing part was filled
    with zeros (a preallocated download), nor one that was closed by an end marker: libjpeg then
    paints the rest grey and only warns, and Pillow drops its warnings. Grey in the last pixel is
    therefore put to the test: bytes added in front of the end marker change nothing in a complete
    image, since no block is left to take them, but do change one that was cut short.

    Args:
        image: Loaded.
        data: The file.
        scan: Where the entropy-coded data of the first scan begin.
        wanted: The size for which the image was drafted.

    Raises:
        ImageError: With status ``decode_error``.
    """
    end = check_scans(data, scan)
    last = image.getpixel((image.width - 1, image.height - 1))
    if last not in (_MID_GREY, (_MID_GREY,) * 3):
        return
    again = JpegImageFile(BytesIO(data[:end] + _FILLER + data[end:]))
    draft(again, wanted)
    if again.tobytes() != image.tobytes():
        raise ImageError(Status.DECODE_ERROR, "JPEG image is cut short: the rest of it is grey")


def check_markers(data: bytes, scan: int) -> None:
    """Raise if a JPEG that libjpeg decodes without a warning has markers that it skips in silence.

    Its last block is followed by one, then, and the file need not end there. Files that end with
    nothing but their end marker, as most do, are not searched.

    Args:
        data: The file.
        scan: Where the first scan begins.

    Raises:
        ImageError: As ``check_end``.
    """
    if not data.endswith(b"\xff\xd9") or _SKIPPED.search(data[-4:-2]):
        check_scans(data, scan)


def check_scans(data: bytes, scan: int) -> int:
    """Return where the end marker is; raise if there is none, or a marker in front of it is out of place.

    libjpeg paints everything behind such a marker grey, up to the next restart marker at best.

    Args:
        data: The file.
        scan: Where the first scan begins.

    Raises:
        ImageError: As ``check_end``.
    """
    place = scan
    while stop := _STOP.search(data, place):
        restarts = b"".join(_RESTARTS.findall(data, place, stop.start()))
        if restarts != (bytes(_RESTART) * (len(restarts) // 8 + 1))[: len(restarts)]:
            raise _damaged("restart markers are out of order: a part of the data is missing")
        code = stop[0][1]
        if code == _END_OF_IMAGE:
            return stop.start()
        if code not in _BETWEEN_SCANS:
            raise _damaged(f"its data are interrupted by the bytes FF {code:02X}")
        place = stop.end() + int.from_bytes(data[stop.end() : stop.end() + 2], "big")
    raise ImageError(Status.DECODE_ERROR, "JPEG image is cut short: it has no end marker")


def _damaged(what: str) -> ImageError:
    return ImageError(Status.DECODE_ERROR, f"JPEG image is damaged: {what}")
