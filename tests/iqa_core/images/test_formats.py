"""Tests of iqa_core/images/formats.py: what each kind of file becomes."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from iqa_core.errors import Status
from iqa_core.images.decode import decode_image
from iqa_core.images.sniff import sniff
from tests.iqa_core.images.files import (
    BLUE,
    GREEN,
    LOSSLESS,
    LOSSY,
    RED,
    YELLOW,
    corners,
    difference,
    encode,
    failure,
    photo,
)


@pytest.mark.parametrize(("fmt", "options"), LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_formats(fmt, options):
    decoded = decode_image(encode(corners(), fmt, **options))
    assert np.array_equal(decoded.pixels, np.asarray(corners()))


@pytest.mark.parametrize(("fmt", "options"), LOSSY.values(), ids=LOSSY)
def test_lossy_formats(fmt, options):
    pixels = decode_image(encode(corners(), fmt, **options)).pixels
    # chroma is halved by some, so away from the edges of the quadrants
    for (y, x), colour in {(8, 8): RED, (8, 88): GREEN, (56, 8): BLUE, (56, 88): YELLOW}.items():
        assert difference(pixels[y, x], np.array(colour)).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L"])
@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "PPM", "BMP", "JPEG"])
def test_grey_and_bilevel_files(fmt, mode):
    image = Image.new("L", (16, 16), 0)
    image.paste(255, (0, 0, 8, 16))
    pixels = decode_image(encode(image.convert(mode), fmt)).pixels
    assert pixels[8, 4].tolist() == [255] * 3
    assert pixels[8, 12].tolist() == [0] * 3


def frames() -> list[Image.Image]:
    """Return three frames, red first."""
    return [Image.new("RGB", (24, 16), colour) for colour in (RED, GREEN, BLUE)]


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_first_frame_of_many(fmt):
    first, *rest = frames()
    data = encode(first, fmt, save_all=True, append_images=rest)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    decoded = decode_image(data)
    assert decoded.pixels.shape == (16, 24, 3)
    assert difference(decoded.pixels, np.broadcast_to(np.array(RED), (16, 24, 3))).max() <= 3


def test_largest_icon():
    data = encode(corners(), "ICO", sizes=[(16, 16), (48, 32), (24, 16)])
    assert decode_image(data).pixels.shape == (32, 48, 3)


def test_icc_profile_is_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for fmt in ("PNG", "JPEG", "TIFF", "WEBP"):
        with_profile = encode(photo(), fmt, icc_profile=profile)
        assert "icc_profile" in Image.open(io.BytesIO(with_profile)).info
        expected = decode_image(encode(photo(), fmt)).pixels
        assert np.array_equal(decode_image(with_profile).pixels, expected)


def test_heic_without_the_plugin_names_the_plugin(monkeypatch):
    data = encode(corners(), "HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = failure(data)
    assert error.status == Status.UNSUPPORTED
    assert "pip install pillow-heif" in error.message


@pytest.mark.parametrize(("fmt", "name"), [("AVIF", "AVIF"), ("HEIC", "HEIC")])
def test_generic_brand_is_told_apart_by_its_compatible_brands(fmt, name):
    data = encode(corners(), fmt)
    generic = data[:8] + b"mif1" + data[12:]
    assert generic != data
    assert sniff(generic) == name
    assert decode_image(generic).pixels.shape == (64, 96, 3)
