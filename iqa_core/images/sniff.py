"""Recognises a file's format by its first bytes; unsupported formats are named with advice."""

from __future__ import annotations

import re

from iqa_core.errors import ImageError, Status
from iqa_core.images import png
from iqa_core.images.tiff import RAW_ADVICE

__all__ = ["sniff"]

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (png.SIGNATURE, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\1\0", "ICO"),
    (b"\xffO\xffQ", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
)
_PPM = re.compile(rb"P[1-6f]\s")
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # "BM" alone also begins plain text
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_GENERIC_BRANDS = {b"mif1", b"msf1"}

_CONVERT = "is not read: convert it to PNG, JPEG or TIFF first"
_NOT_READ = (
    (re.compile(rb"II(RO|RS)|MMOR"), f"Olympus ORF: {RAW_ADVICE}"),
    (re.compile(rb"IIU\0"), f"Panasonic RW2: {RAW_ADVICE}"),
    (re.compile(rb"FUJIFILMCCD-RAW"), f"Fujifilm RAF: {RAW_ADVICE}"),
    (re.compile(rb"....ftypcrx ", re.DOTALL), f"Canon CR3: {RAW_ADVICE}"),
    (re.compile(rb"II....HEAPCCDR", re.DOTALL), f"Canon CRW: {RAW_ADVICE}"),
    (re.compile(rb"\0MRM"), f"Minolta MRW: {RAW_ADVICE}"),
    (re.compile(rb"FOVb"), f"Sigma X3F: {RAW_ADVICE}"),
    (re.compile(rb"8BPS"), f"a Photoshop document {_CONVERT}"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), f"PostScript {_CONVERT}"),
    (re.compile(rb"%PDF-"), f"PDF {_CONVERT}"),
    (re.compile(rb"DDS "), f"DirectDraw Surface (DDS) {_CONVERT}"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"), f"JPEG XL {_CONVERT}"),
    (re.compile(rb"II\xbc"), f"JPEG XR {_CONVERT}"),
    (re.compile(rb"\x8bJNG|\x8aMNG"), f"JNG or MNG {_CONVERT}"),
    (re.compile(rb"v/1\x01"), f"OpenEXR {_CONVERT}"),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), f"Radiance HDR {_CONVERT}"),
)


def sniff(data: bytes) -> str:
    """Return the format by the first bytes.

    Raises:
        ImageError: With status ``unsupported`` if it is none that is read here.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if _PPM.match(data):
        return "PPM"
    if data[4:8] == b"ftyp" and (kind := _sniff_heif(data)):
        return kind
    for pattern, message in _NOT_READ:
        if pattern.match(data):
            raise ImageError(Status.UNSUPPORTED, message)
    raise ImageError(
        Status.UNSUPPORTED, f"no image in a format that is read here: begins with {data[:16]!r}"
    )


def _sniff_heif(data: bytes) -> str | None:
    """Distinguish AVIF from HEIC, which share a container and its generic brands."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12]} | {data[i : i + 4] for i in range(16, end, 4)}
    if data[8:12] in _HEIF_BRANDS:
        return "HEIC"
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & (_HEIF_BRANDS | _GENERIC_BRANDS) else None
