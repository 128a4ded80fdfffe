"""Image files that tests make, and what decoding them gives."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)


def encode(image: Image.Image, fmt: str, **options) -> bytes:
    """Write an image as one file."""
    buffer = io.BytesIO()
    if fmt == "HEIC":
        # not through Pillow's own save, which would need the plugin registered
        data = image.convert("RGB").tobytes()
        pillow_heif.encode("RGB", image.size, data, buffer, **options)
    else:
        image.save(buffer, fmt, **options)
    return buffer.getvalue()


def corners(width: int = 96, height: int = 64) -> Image.Image:
    """Four quadrants of different colour: no flip or turn of it equals another."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    top, left = slice(None, height // 2), slice(None, width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    pixels[top, left], pixels[top, right] = RED, GREEN
    pixels[bottom, left], pixels[bottom, right] = BLUE, YELLOW
    return Image.fromarray(pixels)


def photo(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """Smooth random colours: as a photograph, it has detail at every place and no flat area."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, bits: int, colour: int, *rows: bytes, before=b"", after=b"", height=0) -> bytes:
    """Return a PNG of a depth or with chunks that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height or len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", data), after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def trns(*values: int) -> bytes:
    """Return the PNG chunk that declares one grey value or one colour transparent."""
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def tiff(width: int, height: int, bits: int, data: bytes, *, photometric=1, compression=1) -> bytes:
    """Return a little-endian grey TIFF of one strip, its directory in front of the data."""
    entries = [(256, width), (257, height), (258, bits), (259, compression), (262, photometric)]
    entries += [(273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, height), (279, len(data))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data


def exif(orientation: int) -> Image.Exif:
    """Return EXIF data that hold an orientation alone."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def preprocess(height: int = 32, width: int | None = None, **options) -> Preprocess:
    """Return a tower's preprocessing."""
    size = (height, width or height)
    return Preprocess(size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **options)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a - b| of uint8 arrays."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int))


def failure(data: bytes, *args, **options) -> ImageError:
    """Decode what can't be decoded; return the error, whose message must be one line."""
    with pytest.raises(ImageError) as caught:
        decode_image(data, *args, **options)
    assert "\n" not in caught.value.message
    return caught.value


LOSSLESS = {
    "PNG": ("PNG", {}),
    "PNG, interlaced or not, without filters": ("PNG", {"compress_level": 0}),
    "WebP": ("WEBP", {"lossless": True}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "BigTIFF": ("TIFF", {"big_tiff": True}),
    "PPM": ("PPM", {}),
    "JPEG 2000": ("JPEG2000", {}),
    "JPEG 2000 codestream": ("JPEG2000", {"no_jp2": True}),
    "ICO": ("ICO", {"sizes": [(96, 64)]}),
    "ICO of bitmaps": ("ICO", {"sizes": [(96, 64)], "bitmap_format": "bmp"}),
}
LOSSY = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}),
    "JPEG, progressive": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    "JPEG, optimised, with restarts": ("JPEG", {"quality": 95, "restart_marker_blocks": 3}),
    "WebP, lossy": ("WEBP", {"quality": 95}),
    "AVIF": ("AVIF", {"quality": 95}),
    "HEIC": ("HEIC", {"quality": 95}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg", "quality": 95}),
}

#: EXIF orientation -> what it does to an array of pixels.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
