"""Common JPEGs: the pixels and the verdict of Pillow's way, faster."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from iqa_core.errors import ImageError
from iqa_core.images import jpeg, turbo
from iqa_core.images.decode import decode_image
from tests.iqa_core.images.files import TURNS, encode, exif, failure, photo, preprocess


def noisy(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(2).normal(0, 12, (height, width, 3))
    return Image.fromarray(
        np.clip(np.asarray(photo(width, height)) + noise, 0, 255).astype("uint8")
    )


KINDS = {
    "4:2:0": encode(noisy(401, 303), "JPEG", quality=91),
    "4:2:2": encode(noisy(400, 300), "JPEG", quality=91, subsampling=1),
    "4:4:4": encode(noisy(123, 77), "JPEG", quality=97, subsampling=0),
    "progressive": encode(noisy(399, 301), "JPEG", quality=91, progressive=True),
    "restarts": encode(noisy(400, 300), "JPEG", quality=80, restart_marker_blocks=5),
    "progressive, restarts": encode(
        noisy(301, 203), "JPEG", progressive=True, restart_marker_rows=1
    ),
    "RGB": encode(noisy(200, 100), "JPEG", quality=91, keep_rgb=True),
    "grey": encode(noisy(401, 300).convert("L"), "JPEG", quality=91),
    "grey, progressive": encode(noisy(299, 301).convert("L"), "JPEG", progressive=True),
    "mid-grey": encode(Image.new("RGB", (300, 200), (128, 128, 128)), "JPEG"),
    "one pixel": encode(Image.new("RGB", (1, 1), (9, 99, 199)), "JPEG"),
}


@pytest.fixture
def without_pillow(monkeypatch):
    """Pillow must not decode a JPEG."""

    def fail(self):
        raise AssertionError("Pillow decodes")

    monkeypatch.setattr(JpegImageFile, "load", fail)


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_native_pixels_are_those_of_pillow(data):
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    decoded = decode_image(data)
    assert np.array_equal(decoded.pixels, expected)
    assert np.array_equal(decoded.pixels, decode_image(data, mode="exact").pixels)
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.writeable


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_scaled_pixels_are_those_of_pillow(data, scale):
    image = Image.open(io.BytesIO(data))
    size = image.size
    grey = image.mode == "L"
    image.draft(None, (max(1, size[0] // scale), max(1, size[1] // scale)))
    pixels = turbo.decode(data, size, scale, "GRAY" if grey else "RGBX")
    if min(size) < scale:  # Pillow reduces no further
        return
    assert np.array_equal(pixels[..., 0] if grey else pixels[..., :3], np.asarray(image))


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_common_kinds_do_without_pillow(data, without_pillow):
    assert decode_image(data, preprocess()).pixels.shape == (32, 32, 3)
    assert decode_image(data).pixels.shape[-1] == 3


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("place", ["exif", "xmp"])
def test_orientation(orientation, place, without_pillow):
    if place == "exif":
        data = encode(photo(40, 24), "JPEG", exif=exif(orientation))
    else:
        xmp = f'<x tiff:Orientation="{orientation}"/>'.encode()
        data = encode(photo(40, 24), "JPEG", xmp=xmp)
    upright = decode_image(encode(photo(40, 24), "JPEG")).pixels
    decoded = decode_image(data)
    assert np.array_equal(decoded.pixels, TURNS[orientation](upright))
    assert decoded.pixels.flags.c_contiguous
    assert (decoded.height, decoded.width) == decoded.pixels.shape[:2]


def test_grey_is_the_same_in_three_channels(without_pillow):
    pixels = decode_image(KINDS["grey"], preprocess()).pixels
    assert (pixels == pixels[..., :1]).all()


def with_frame(data: bytes, marker: int | None = None, bits: int | None = None) -> bytes:
    place = data.index(b"\xff\xc0")
    changed = bytearray(data)
    if marker is not None:
        changed[place + 1] = marker
    if bits is not None:
        changed[place + 4] = bits
    return bytes(changed)


OTHERS = {
    "CMYK": encode(photo().convert("CMYK"), "JPEG"),
    "12 bits": with_frame(KINDS["4:4:4"], marker=0xC1, bits=12),
    "lossless": with_frame(KINDS["4:4:4"], marker=0xC3),
    "arithmetic": with_frame(KINDS["4:4:4"], marker=0xC9),
    "two frames": KINDS["4:4:4"].replace(
        b"\xff\xda", b"\xff\xc0\0\x0b\x08\0\x10\0\x10\x01\x01\x11\0\xff\xda"
    ),
    "no height": KINDS["4:4:4"].replace(struct.pack(">HH", 77, 123), struct.pack(">HH", 0, 123)),
    "header cut": KINDS["4:4:4"][:100],
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_other_kinds_are_left_to_pillow(data):
    assert jpeg.common_frame(jpeg.read_header(data)) is None


def test_frame():
    assert jpeg.common_frame(jpeg.read_header(KINDS["4:2:0"])) == (401, 303, 3)
    assert jpeg.common_frame(jpeg.read_header(KINDS["grey"])) == (401, 300, 1)


@pytest.mark.parametrize(("size", "wanted", "scale"), [
    ((100, 80), (100, 80), 1), ((100, 80), (51, 1), 1), ((100, 80), (50, 40), 2), ((100, 80), (50, 41), 1),
    ((100, 80), (26, 20), 2), ((101, 80), (25, 20), 4), ((100, 80), (12, 10), 8), ((100, 80), (1, 1), 8),
    ((10, 10), (30, 30), 1),
])  # fmt: skip
def test_scale(size, wanted, scale):
    assert turbo.scale_for(size, wanted) == scale


def test_any_warning_is_left_to_pillow():
    data = KINDS["restarts"]
    place = data.index(b"\xff\xd1")
    for changed in (
        data[:-2] + b"\0" * 9 + data[-2:],  # bytes behind the last block, which only warn
        data[:place] + data[place + 2 :],
        data[:-2],
        data[: len(data) // 2] + b"\xff\xd9",
    ):
        assert turbo.decode(changed, (400, 300), 1, "RGB") is None
    assert turbo.decode(data, (400, 300), 1, "RGB") is not None


def test_a_harmless_oddity_is_an_image_all_the_same():
    data = KINDS["4:2:0"][:-2] + b"\0" * 9 + KINDS["4:2:0"][-2:]
    assert np.array_equal(decode_image(data).pixels, decode_image(KINDS["4:2:0"]).pixels)


@pytest.mark.parametrize("tail", [b"", bytes(50), b"trailer of a camera", KINDS["grey"]])
def test_skipped_marker_behind_the_last_block(tail):
    data = KINDS["4:2:0"]
    assert decode_image(data + tail).width == 401
    for marker in (b"\xff\xd5", b"\xff\x01"):
        changed = data[:-2] + marker + data[-2:]
        if tail == KINDS["grey"]:  # it ends as a sound file does, and its picture is whole
            assert decode_image(changed + tail).width == 401
        else:
            assert failure(changed + tail).status == "decode_error"
            assert failure(changed + tail, mode="exact").status == "decode_error"


def mutated(rng: random.Random) -> bytes:
    """Damage one of ``KINDS``, mostly behind its header."""
    data = bytearray(rng.choice(list(KINDS.values())))
    scan = bytes(data).index(b"\xff\xda")
    place, count = rng.randrange(scan + 10, len(data) - 1), rng.choice([1, 2, 8, 64, 512])
    kind = rng.randrange(10)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:] = b"\xff\xd9"
    elif kind == 3:
        data[place:] = bytes(len(data) - place)
    elif kind == 4:
        data[place : place + count] = bytes(min(count, len(data) - place))
    elif kind == 5:
        del data[place : place + count]
    elif kind == 6:
        data[place:place] = rng.randbytes(count)
    elif kind == 7:
        data[place : place + 2] = bytes([0xFF, rng.randrange(1, 256)])
    elif kind == 8:
        data[rng.randrange(2, scan + 10)] = rng.randrange(256)
    else:
        data[-2:-2] = bytes([0xFF, rng.choice([1, 0xC0, 0xC4, 0xD3, 0xDA, 0xE1, 0xFE]), 0, 2])
    return bytes(data)


def outcome(data: bytes, mode: str):
    try:
        return decode_image(data, mode=mode).pixels.tobytes()
    except ImageError as error:
        return error.status, error.message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_have_the_pixels_or_the_error_of_pillows_way(seed):
    rng = random.Random(seed)
    errors = 0
    for _ in range(120):
        data = mutated(rng)
        fast, exact = (outcome(data, mode) for mode in ("fast", "exact"))
        assert fast == exact, data
        errors += not isinstance(fast, bytes)
    assert 20 < errors < 100
