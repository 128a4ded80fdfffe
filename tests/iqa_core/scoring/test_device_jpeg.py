"""JPEGs left encoded for a device: torchcodec's decoder on a CPU, where its pixels are Pillow's.

What nvJPEG makes of them, a GPU alone can show.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_core.errors import ImageError, InputError, Status
from iqa_core.images.decode import decode_image
from iqa_core.images.encoded import EncodedJpeg, read_for_device
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.device_jpeg import DeviceDecoder, check_torchcodec, decode_on_device

TOWER = Preprocess(size=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def jpeg(image, turn=1, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", exif=exif, quality=90, **options)
    return stream.getvalue()


def on_device(data: bytes, preprocess: Preprocess = TOWER):
    """The pixels of an image that was left encoded, or why there are none."""
    left = read_for_device(data, preprocess)
    assert isinstance(left, EncodedJpeg)
    (found,) = DeviceDecoder(preprocess).decode([left], "cpu")
    return found


@pytest.mark.parametrize(
    "tower",
    [
        TOWER,
        replace(TOWER, interpolation="bilinear"),
        replace(TOWER, resize_mode="longest", fill_color=114),
        replace(TOWER, resize_mode="squash", size=(224, 160)),
    ],
    ids=lambda tower: f"{tower.resize_mode}-{tower.interpolation}",
)
@pytest.mark.parametrize("turn", range(1, 9))
def test_pixels_are_those_of_exact(photos, tower, turn):
    """But for rounding: sums of float32 instead of whole numbers."""
    data = jpeg(photos["chelsea"], turn)
    found = on_device(data, tower)
    exact = decode_image(data, tower, mode="exact")
    assert isinstance(found, torch.Tensor)
    difference = np.abs(found.numpy().astype(int) - exact.pixels)
    assert difference.max() <= 2
    assert difference.mean() < 0.02
    left = read_for_device(data, tower)
    assert (left.width, left.height) == (exact.width, exact.height)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_kinds_of_jpegs(photos, options):
    data = jpeg(photos["china"], **options)
    exact = decode_image(data, TOWER, mode="exact").pixels
    assert np.abs(on_device(data).numpy().astype(int) - exact).max() <= 2


def test_grey_jpegs_have_three_channels(photos):
    data = jpeg(photos["china"][..., 1])
    exact = decode_image(data, TOWER, mode="exact").pixels
    assert np.abs(on_device(data).numpy().astype(int) - exact).max() <= 2


def test_so_is_one_that_was_closed_again(photos):
    """Its header and markers are whole: the grey at its end sends it to the CPU's checks."""
    data = jpeg(photos["china"])
    found = on_device(data[: len(data) // 2] + b"\xff\xd9")
    assert isinstance(found, ImageError)
    assert (found.status, "cut short" in found.message) == (Status.DECODE_ERROR, True)


def test_an_image_may_end_in_grey():
    grey = np.full((300, 400, 3), 128, np.uint8)
    found = on_device(jpeg(grey))
    np.testing.assert_array_equal(found, np.full((224, 224, 3), 128, np.uint8))


def test_an_image_that_fails_costs_no_other(photos):
    data = jpeg(photos["china"])
    good = read_for_device(data, TOWER)
    broken = replace(good, data=np.frombuffer(data[:2000] + bytes(500), np.uint8))
    images = [good, broken, good]
    alone = decode_on_device([good], TOWER, "cpu")[0]
    found = decode_on_device(images, TOWER, "cpu")
    assert found[1] is None
    assert torch.equal(found[0], alone)
    assert torch.equal(found[2], alone)
    result = DeviceDecoder(TOWER).decode(images, "cpu")[1]
    assert isinstance(result, ImageError)
    assert result.status == Status.DECODE_ERROR


def test_many_images_are_decoded_in_parts(photos, monkeypatch):
    monkeypatch.setattr("iqa_core.scoring.device_jpeg._PIXELS", 300_000)
    names = ("chelsea", "china", "flower")
    images = [read_for_device(jpeg(photos[name]), TOWER) for name in (*names, *names)]
    found = decode_on_device(images, TOWER, "cpu")
    for image, pixels in zip(images, found, strict=True):
        assert torch.equal(pixels, decode_on_device([image], TOWER, "cpu")[0])


def test_torchcodec_is_asked_for_where_it_is_missing(monkeypatch):
    check_torchcodec()
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(InputError, match="decode gpu needs torchcodec"):
        check_torchcodec()
