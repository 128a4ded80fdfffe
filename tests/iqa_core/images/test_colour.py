"""Tests of iqa_core/images/colour.py: modes, alpha channels, depths, orientation."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from iqa_core.images.colour import orient_rgb
from iqa_core.images.decode import decode_image
from tests.iqa_core.images.files import (
    BLUE,
    GREEN,
    RED,
    TURNS,
    chunk,
    corners,
    difference,
    encode,
    exif,
    png,
    preprocess,
    tiff,
    trns,
)

MODES = {  # mode -> a pixel in that mode, the RGB that it shows
    "1": (255, (255, 255, 255)),
    "L": (77, (77, 77, 77)),
    "LA": ((100, 51), (224, 224, 224)),  # 100 * 0.2 + 255 * 0.8
    "RGB": ((1, 2, 3), (1, 2, 3)),
    "RGBX": ((1, 2, 3, 9), (1, 2, 3)),
    "RGBA": ((200, 100, 0, 102), (233, 193, 153)),  # c * 0.4 + 255 * 0.6
    "CMYK": ((0, 255, 255, 0), RED),
    "YCbCr": ((76, 85, 255), (254, 0, 0)),
    "HSV": ((85, 255, 255), (0, 255, 0)),
    "LAB": ((138, 209, 198), (251, 5, 4)),
    "I;16": (0x8000, (128, 128, 128)),
    "I;16L": (0xFF00, (255, 255, 255)),
    "I;16B": (0x0100, (1, 1, 1)),
}


@pytest.mark.parametrize(("mode", "pixel", "rgb"), [(m, *v) for m, v in MODES.items()], ids=MODES)
def test_modes(mode, pixel, rgb):
    pixels = np.asarray(orient_rgb(Image.new(mode, (3, 2), pixel)))
    assert pixels.shape == (2, 3, 3)
    assert difference(pixels, np.broadcast_to(np.array(rgb), (2, 3, 3))).max() <= 1


@pytest.mark.parametrize(("mode", "straight"), [("La", "LA"), ("RGBa", "RGBA")])
def test_premultiplied_modes(mode, straight):
    pixel = MODES[straight][0]
    pixels = np.asarray(orient_rgb(Image.new(straight, (2, 2), pixel).convert(mode)))
    assert difference(pixels[0, 0], np.array(MODES[straight][1])).max() <= 2


def palette_image(mode: str = "P") -> Image.Image:
    """Return a palette image: index 0 red, 1 green, 2 blue."""
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image if mode == "P" else image.convert(mode)


def test_palette():
    for fmt in ("PNG", "GIF", "TIFF", "BMP"):
        pixels = decode_image(encode(palette_image(), fmt)).pixels
        assert pixels.tolist() == [[list(RED), list(GREEN), list(BLUE)]]


def test_palette_with_one_transparent_entry_is_shown_on_white():
    for fmt in ("PNG", "GIF"):
        pixels = decode_image(encode(palette_image(), fmt, transparency=1)).pixels
        assert pixels.tolist() == [[list(RED), [255] * 3, list(BLUE)]]


def test_palette_with_an_alpha_table_is_shown_on_white():
    data = encode(palette_image(), "PNG", transparency=bytes([255, 0, 51]))
    assert decode_image(data).pixels.tolist() == [[list(RED), [255] * 3, [204, 204, 255]]]


def test_palette_with_an_alpha_channel_is_shown_on_white():
    image = palette_image("PA")
    image.putalpha(Image.frombytes("L", (3, 1), bytes([255, 0, 51])))
    assert image.mode == "PA"
    expected = [[list(RED), [255] * 3, [204, 204, 255]]]
    assert np.asarray(orient_rgb(image)).tolist() == expected


def test_palette_of_rgba_is_shown_on_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, 255, *BLUE, 51], "RGBA")
    image.putdata([0, 1])
    assert np.asarray(orient_rgb(image)).tolist() == [[list(RED), [204, 204, 255]]]


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF", "ICO"])
def test_hidden_colour_of_transparent_pixels_does_not_show(fmt):
    image = Image.new("RGBA", (32, 32), (*RED, 0))
    image.paste((*BLUE, 255), (0, 0, 16, 32))
    options = {"WEBP": {"lossless": True, "exact": True}, "ICO": {"sizes": [(32, 32)]}}
    pixels = decode_image(encode(image, fmt, **options.get(fmt, {}))).pixels
    assert pixels[0, 0].tolist() == list(BLUE)
    assert pixels[0, 31].tolist() == [255, 255, 255]


TRANSPARENT_COLOUR = {  # PNG with tRNS -> the pixels that it shows
    "1 bit": (png(8, 1, 0, b"\xaa", before=trns(0)), [255] * 8),
    "8 bit grey": (png(3, 8, 0, bytes([10, 20, 30]), before=trns(20)), [10, 255, 30]),
    "16 bit grey": (
        png(3, 16, 0, struct.pack(">3H", 0x0A00, 0x0A01, 0xFF00), before=trns(0x0A01)),
        [10, 255, 255],
    ),
}


@pytest.mark.parametrize(("data", "shown"), TRANSPARENT_COLOUR.values(), ids=TRANSPARENT_COLOUR)
def test_transparent_grey_value_is_shown_white(data, shown):
    assert decode_image(data).pixels[0, :, 0].tolist() == shown


def test_transparent_colour_is_shown_white():
    eight = png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), before=trns(1, 2, 3))
    assert decode_image(eight).pixels.tolist() == [[[255] * 3, [4, 5, 6]]]
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x0100, 0x0200, 0x0300)
    sixteen = png(2, 16, 2, row, before=trns(0x1234, 0x5678, 0x9ABC))
    assert decode_image(sixteen).pixels.tolist() == [[[255] * 3, [1, 2, 3]]]


RAMP = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFEFF, 0xFF00, 0xFFFF]], dtype=np.uint16)
RAMP_SHOWN = [0, 0, 1, 127, 128, 254, 255, 255]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    little = Image.fromarray(RAMP)
    big = Image.fromarray(RAMP.astype(">u2"))
    assert (little.mode, big.mode) == ("I;16", "I;16B")
    pgm = b"P5 8 1 65535\n" + RAMP.astype(">u2").tobytes()
    files = [encode(little, "PNG"), encode(little, "TIFF"), encode(big, "TIFF"), pgm]
    files.append(encode(little, "TIFF", compression="tiff_lzw"))
    for data in files:
        pixels = decode_image(data).pixels
        assert pixels[0, :, 0].tolist() == RAMP_SHOWN
        assert (pixels == pixels[..., :1]).all()


def test_sixteen_bit_colour_is_scaled_as_sixteen_bit_grey_is():
    row = np.repeat(RAMP.astype(">u2"), 3).tobytes()
    assert decode_image(png(8, 16, 2, row)).pixels[0, :, 1].tolist() == RAMP_SHOWN
    grey = decode_image(png(8, 16, 0, RAMP.astype(">u2").tobytes()))
    assert grey.pixels[0, :, 1].tolist() == RAMP_SHOWN


def test_sixteen_bit_grey_with_alpha_is_shown_on_white():
    row = struct.pack(">4H", 0x8000, 0xFFFF, 0x8000, 0)
    assert decode_image(png(2, 16, 4, row)).pixels[0, :, 0].tolist() == [128, 255]


def test_grey_of_other_depths():
    ten_bit = b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023)
    assert decode_image(ten_bit).pixels[0, :, 0].tolist() == [0, 128, 255]
    dark = b"P5 2 1 65535\n" + struct.pack(">2H", 200, 255)
    assert decode_image(dark).pixels[0, :, 0].tolist() == [0, 0]  # the range is declared
    twelve_bit = tiff(2, 1, 12, bytes([0xFF, 0xF8, 0x00]))
    assert decode_image(twelve_bit).pixels[0, :, 0].tolist() == [255, 128]
    four_bit = png(2, 4, 0, bytes([0x0F]))
    assert decode_image(four_bit).pixels[0, :, 0].tolist() == [0, 255]


def test_sixteen_bit_tiff_whose_zero_is_white():
    data = tiff(3, 1, 16, struct.pack("<3H", 0, 0x4000, 0xFFFF), photometric=0)
    assert decode_image(data).pixels[0, :, 0].tolist() == [255, 191, 0]


UNDECLARED = {  # values without a declared range -> 8 bits
    "int, 8 bit": (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
    "int, 16 bit": (np.array([[0, 256, 65535]], np.int32), [0, 1, 255]),
    "int, wide": (np.array([[0, 50_000, 100_000]], np.int32), [0, 128, 255]),
    "int, signed": (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
    "int, one value": (np.array([[-5, -5]], np.int32), [0, 0]),
    "float, unit": (np.array([[0.0, 0.2, 1.0]], np.float32), [0, 51, 255]),
    "float, 8 bit": (np.array([[0.0, 99.6, 255.0]], np.float32), [0, 100, 255]),
    "float, signed": (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
    "float, not finite": (np.array([[0.0, np.nan, np.inf, 0.4]], np.float32), [0, 0, 255, 102]),
    "float, nothing finite": (np.array([[np.nan, np.nan]], np.float32), [0, 0]),
}


@pytest.mark.parametrize(("values", "shown"), UNDECLARED.values(), ids=UNDECLARED)
def test_values_without_a_declared_range(values, shown):
    image = Image.fromarray(values)
    assert image.mode in ("I", "F")
    for pixels in (np.asarray(orient_rgb(image)), decode_image(encode(image, "TIFF")).pixels):
        assert difference(pixels[0, :, 0], np.array(shown)).max() <= 1


def adobe_segment(data: bytes) -> slice:
    """Return where the Adobe marker of a JPEG is."""
    start = data.index(b"\xff\xee\x00\x0eAdobe")
    return slice(start, start + 16)


@pytest.mark.parametrize("tower", [None, preprocess(8)], ids=["native", "tower"])
def test_cmyk_jpeg_with_and_without_the_adobe_marker(tower):
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    with_marker = encode(image, "JPEG", quality=95)
    segment = adobe_segment(with_marker)
    without = with_marker[: segment.start] + with_marker[segment.stop :]
    assert b"Adobe" not in without
    for data in (with_marker, without):
        pixels = decode_image(data, tower).pixels
        assert difference(pixels, np.broadcast_to(np.array(RED), pixels.shape)).max() <= 3


def test_ycck_jpeg():
    # Photoshop stores ink inverted, so red has (C, M, Y, K) = (255, 0, 0, 255), and YCCK codes its
    # complement (0, 255, 255) as YCbCr; Pillow writes CMYK inverted, hence 255 - value
    y, cb, cr = Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr").getpixel((0, 0))
    stored = (255 - y, 255 - cb, 255 - cr, 0)
    data = bytearray(encode(Image.new("CMYK", (32, 32), stored), "JPEG", quality=95))
    data[adobe_segment(bytes(data)).stop - 1] = 2  # transform: YCCK
    assert Image.open(io.BytesIO(data)).info["adobe_transform"] == 2
    pixels = decode_image(bytes(data)).pixels
    assert difference(pixels, np.broadcast_to(np.array(RED), pixels.shape)).max() <= 4


# Orientation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("MPO", {"quality": 95, "subsampling": 0}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
        ("HEIC", {"quality": 95, "chroma": 444}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("compression", ""),
)
def test_orientation(fmt, options, orientation):
    data = encode(corners(48, 32), fmt, **options, exif=exif(orientation).tobytes())
    decoded = decode_image(data)
    expected = TURNS[orientation](np.asarray(corners(48, 32)))
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert difference(decoded.pixels, expected).mean() <= 2


def test_orientation_behind_the_pixels_of_a_png():
    data = png(2, 8, 0, bytes([10, 20]), after=chunk(b"eXIf", exif(6).tobytes()[6:]))
    assert decode_image(data).pixels[:, :, 0].tolist() == [[10], [20]]


def test_orientation_of_sixteen_bit_grey():
    image = Image.fromarray(np.array([[0x0A00, 0x1400]], dtype=np.uint16))
    for fmt in ("PNG", "TIFF"):
        pixels = decode_image(encode(image, fmt, exif=exif(8))).pixels
        assert pixels[:, :, 0].tolist() == [[20], [10]]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damaged", [b"Exif\0\0II*\0", b"Exif\0\0nonsense", exif(6).tobytes()[:-9]])
def test_damaged_exif_loses_the_orientation_but_not_the_photo(damaged, fmt):
    decoded = decode_image(encode(corners(), fmt, exif=damaged))
    assert (decoded.width, decoded.height) == (96, 64)


def test_tiff_that_pillow_orients_as_it_loads_is_not_turned_twice():
    opened = Image.open(io.BytesIO(encode(corners(48, 32), "TIFF", exif=exif(3))))
    assert np.array_equal(np.asarray(orient_rgb(opened)), TURNS[3](np.asarray(corners(48, 32))))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_out_of_range_is_none(value):
    assert decode_image(encode(corners(), "PNG", exif=exif(value))).width == 96


# Alpha channels that are used and unused ----------------------------------------------------------


PIXELS = np.random.default_rng(1).integers(1, 256, (12, 16, 4), dtype=np.uint8)
HIDDEN = PIXELS.copy()
HIDDEN[..., 3] = 0


def bmp32(pixels: np.ndarray, *, alpha_mask: int | None) -> bytes:
    """Return a BMP of 32 bits: without masks if ``alpha_mask`` is None, of version 5 else."""
    height, width = pixels.shape[:2]
    data = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    size, compression = (40, 0) if alpha_mask is None else (124, 3)
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, compression, 0, 0, 0, 0, 0)
    if alpha_mask is not None:
        header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, alpha_mask)
    header = header.ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + size) + header + data  # states no file size


def rgba_tiff(pixels: np.ndarray, extra: int | None) -> bytes:
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


def encode_pixels(pixels: np.ndarray, fmt: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt, **options)
    return buffer.getvalue()


UNUSED = {
    "BMP without masks": bmp32(HIDDEN, alpha_mask=None),
    "BMP whose fourth mask is empty": bmp32(HIDDEN, alpha_mask=0),
    "BMP with an alpha mask": bmp32(HIDDEN, alpha_mask=0xFF000000),
    "TIFF that does not declare its fourth sample": rgba_tiff(HIDDEN, None),
    "TIFF with an unspecified sample": rgba_tiff(HIDDEN, 0),
    "JPEG 2000": encode_pixels(HIDDEN, "JPEG2000"),
}


@pytest.mark.parametrize("data", UNUSED.values(), ids=UNUSED)
def test_alpha_of_zero_everywhere_where_it_may_be_unused(data):
    assert np.array_equal(decode_image(data).pixels, PIXELS[..., :3])


def test_black_picture_with_unused_alpha_is_black():
    for data in (bmp32(HIDDEN * 0, alpha_mask=0xFF000000), rgba_tiff(HIDDEN * 0, None)):
        assert decode_image(data).pixels.max() == 0


USED = {
    "PNG": encode_pixels(HIDDEN, "PNG"),
    "WebP": encode_pixels(HIDDEN, "WEBP", lossless=True, exact=True),
    "TIFF with unassociated alpha": rgba_tiff(HIDDEN, 2),
    "TIFF with associated alpha": rgba_tiff(HIDDEN, 1),
}


@pytest.mark.parametrize("data", USED.values(), ids=USED)
def test_declared_alpha_of_zero_everywhere_shows_white(data):
    assert (decode_image(data).pixels == 255).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda pixels: bmp32(pixels, alpha_mask=0xFF000000),
        lambda pixels: rgba_tiff(pixels, None),
        lambda pixels: rgba_tiff(pixels, 2),
        lambda pixels: encode_pixels(pixels, "JPEG2000"),
        lambda pixels: encode_pixels(pixels, "PNG"),
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
    for data in (
        encode_pixels(opaque, "PNG"),
        bmp32(opaque, alpha_mask=0xFF000000),
        rgba_tiff(opaque, 1),
    ):
        assert np.array_equal(decode_image(data).pixels, PIXELS[..., :3])


def test_alpha_of_grey():
    image = Image.merge("LA", [Image.new("L", (3, 2), 70), Image.new("L", (3, 2), 0)])
    assert (np.asarray(orient_rgb(image)) == 255).all()
    image.format = "TGA"
    assert (np.asarray(orient_rgb(image)) == 70).all()
