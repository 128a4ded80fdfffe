"""Alpha channels that mean nothing, and those that do."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from iqa_core.images.colour import orient_rgb
from iqa_core.images.decode import decode_image

PIXELS = np.random.default_rng(1).integers(1, 256, (12, 16, 4), dtype=np.uint8)
HIDDEN = PIXELS.copy()
HIDDEN[..., 3] = 0


def bmp(pixels: np.ndarray, *, alpha_mask: int | None) -> bytes:
    """Return a BMP of 32 bits: without masks if ``alpha_mask`` is None, of version 5 else."""
    height, width = pixels.shape[:2]
    data = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    size, compression = (40, 0) if alpha_mask is None else (124, 3)
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, compression, 0, 0, 0, 0, 0)
    if alpha_mask is not None:
        header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, alpha_mask)
    header = header.ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + size) + header + data  # states no file size


def tiff(pixels: np.ndarray, extra: int | None) -> bytes:
    """Return a TIFF of four samples, the fourth declared as ``extra`` or not at all."""
    height, width = pixels.shape[:2]
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 4, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
    ]
    entries += [(273, 4, 1, 16), (277, 3, 1, 4), (278, 3, 1, height), (279, 4, 1, pixels.nbytes)]
    entries += [] if extra is None else [(338, 3, 1, extra)]
    bits = struct.pack("<4H", 8, 8, 8, 8)
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 16 + pixels.nbytes) + bits
    return head + pixels.tobytes() + struct.pack("<H", len(entries)) + directory + bytes(4)


def encode(pixels: np.ndarray, fmt: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt, **options)
    return buffer.getvalue()


UNUSED = {
    "BMP without masks": bmp(HIDDEN, alpha_mask=None),
    "BMP whose fourth mask is empty": bmp(HIDDEN, alpha_mask=0),
    "BMP with an alpha mask": bmp(HIDDEN, alpha_mask=0xFF000000),
    "TIFF that does not declare its fourth sample": tiff(HIDDEN, None),
    "TIFF with an unspecified sample": tiff(HIDDEN, 0),
    "JPEG 2000": encode(HIDDEN, "JPEG2000"),
}


@pytest.mark.parametrize("data", UNUSED.values(), ids=UNUSED)
def test_alpha_of_zero_everywhere_where_it_may_be_unused(data):
    assert np.array_equal(decode_image(data).pixels, PIXELS[..., :3])


def test_black_picture_with_unused_alpha_is_black():
    for data in (bmp(HIDDEN * 0, alpha_mask=0xFF000000), tiff(HIDDEN * 0, None)):
        assert decode_image(data).pixels.max() == 0


USED = {
    "PNG": encode(HIDDEN, "PNG"),
    "WebP": encode(HIDDEN, "WEBP", lossless=True, exact=True),
    "TIFF with unassociated alpha": tiff(HIDDEN, 2),
    "TIFF with associated alpha": tiff(HIDDEN, 1),
}


@pytest.mark.parametrize("data", USED.values(), ids=USED)
def test_declared_alpha_of_zero_everywhere_shows_white(data):
    assert (decode_image(data).pixels == 255).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda pixels: bmp(pixels, alpha_mask=0xFF000000),
        lambda pixels: tiff(pixels, None),
        lambda pixels: tiff(pixels, 2),
        lambda pixels: encode(pixels, "JPEG2000"),
        lambda pixels: encode(pixels, "PNG"),
    ],
    ids=["BMP", "TIFF, undeclared", "TIFF", "JPEG 2000", "PNG"],
)
def test_one_pixel_that_is_not_hidden_makes_alpha_count(make):
    pixels = HIDDEN.copy()
    pixels[3, 4, 3] = 255
    shown = decode_image(make(pixels)).pixels
    assert np.array_equal(shown[3, 4], pixels[3, 4, :3])
    shown[3, 4] = 255
    assert (shown == 255).all()


def test_opaque_alpha_changes_nothing():
    opaque = PIXELS.copy()
    opaque[..., 3] = 255
    for data in (encode(opaque, "PNG"), bmp(opaque, alpha_mask=0xFF000000), tiff(opaque, 1)):
        assert np.array_equal(decode_image(data).pixels, PIXELS[..., :3])


def test_alpha_of_grey():
    image = Image.merge("LA", [Image.new("L", (3, 2), 70), Image.new("L", (3, 2), 0)])
    assert (np.asarray(orient_rgb(image)) == 255).all()
    image.format = "TGA"
    assert (np.asarray(orient_rgb(image)) == 70).all()
