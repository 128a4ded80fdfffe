"""Tests of iqa_core/images/crops.py and of its views in decode.py and resize.py."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from iqa_core.errors import InputError
from iqa_core.images.crops import CROPS, check_crops, crop_windows, zoom
from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess

SIDE = 32
SEVERAL = [crops for crops in CROPS if crops > 1]


def preprocess(mode="shortest"):
    return Preprocess(size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode=mode)


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("crops", SEVERAL)
@pytest.mark.parametrize("size", [(200, 150), (150, 200), (160, 160)])
def test_crops_reach_every_edge_and_have_a_centre(crops, size):
    windows = crop_windows(size, (SIDE, SIDE), crops)
    assert len(set(windows)) == crops - 1
    assert all((right - left, bottom - top) == (SIDE, SIDE) for left, top, right, bottom in windows)
    array = np.array(windows)
    assert array[:, 0].min() == array[:, 1].min() == 0
    assert (array[:, 2].max(), array[:, 3].max()) == size
    # The grid is symmetric: with an odd side, its middle is the image's.
    centres = (array[:, :2] + array[:, 2:]) / 2
    np.testing.assert_allclose(centres.mean(axis=0), np.array(size) / 2, atol=0.5)


def test_an_image_is_never_enlarged_for_its_crops():
    assert zoom((4000, 3000), (298, 224), 10) == 3
    assert zoom((400, 300), (298, 224), 10) == pytest.approx(300 / 224)
    assert zoom((100, 75), (298, 224), 10) == 1
    assert zoom((4000, 3000), (298, 224), 1) == 1


@pytest.mark.parametrize("crops", SEVERAL)
@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_views_are_those_of_pillow(photos, crops, mode):
    photo = photos["coffee"]
    found = decode_image(encoded(photo), preprocess(), mode=mode, crops=crops)
    assert found.pixels.shape == (crops, SIDE, SIDE, 3)
    assert (found.width, found.height) == photo.shape[1::-1]
    whole = decode_image(encoded(photo), preprocess(), mode=mode)
    np.testing.assert_array_equal(found.pixels[0], whole.pixels)
    side = CROPS[crops]
    shorter, longer = SIDE * side, round(SIDE * photo.shape[1] / photo.shape[0]) * side
    image = Image.fromarray(photo).resize((longer, shorter), Image.Resampling.BICUBIC)
    for view, window in zip(
        found.pixels[1:], crop_windows(image.size, (SIDE, SIDE), crops), strict=True
    ):
        expected = np.asarray(image.crop(window)).astype(int)
        if mode == "exact":
            np.testing.assert_array_equal(view, expected)
        assert np.abs(view - expected).mean() < 0.1


def test_a_reduced_jpeg_keeps_the_detail_of_its_crops(photos):
    """libjpeg may reduce an image before it is resized, but not below the scale of the crops."""
    photo = np.asarray(Image.fromarray(photos["china"]).resize((1280, 854)))
    data = encoded(photo, "JPEG", quality=95)
    fast, exact = (
        decode_image(data, preprocess(), mode=mode, crops=10) for mode in ("fast", "exact")
    )
    difference = np.abs(fast.pixels.astype(int) - exact.pixels).mean(axis=(1, 2, 3))
    assert difference.max() < 2
    spread = exact.pixels.std(axis=(1, 2, 3)).max()
    assert difference.max() < spread / 10


def test_views_are_turned_as_the_image_is(photos):
    photo = photos["coffee"][:240, :360]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = np.ascontiguousarray(np.rot90(photo, -1))
    stored = decode_image(encoded(photo, exif=exif), preprocess(), crops=5)
    expected = decode_image(encoded(upright), preprocess(), crops=5)
    assert (stored.width, stored.height) == (240, 360)
    assert np.abs(stored.pixels.astype(int) - expected.pixels).max() <= 2


@pytest.mark.parametrize("mode", ["longest", "squash"])
def test_other_ways_to_resize(photos, mode):
    photo = photos["coffee"]
    found = decode_image(encoded(photo), preprocess(mode), crops=5).pixels
    np.testing.assert_array_equal(found[0], decode_image(encoded(photo), preprocess(mode)).pixels)
    assert len({view.tobytes() for view in found}) == 5


def test_an_image_smaller_than_the_model_has_equal_views():
    generator = np.random.default_rng(0)
    tiny_image = generator.integers(0, 256, (20, 20, 3), np.uint8)
    found = decode_image(encoded(tiny_image), preprocess(), crops=10).pixels
    assert len({view.tobytes() for view in found}) == 1


@pytest.mark.parametrize("crops", [0, 2, 9, 37])
def test_numbers_without_a_grid_are_refused(crops):
    with pytest.raises(InputError, match=rf"crops \({crops}\) must be 1, 5, 10, 17 or 26"):
        check_crops(crops)


def test_native_resolution_has_no_crops():
    with pytest.raises(InputError, match="leave out resolution native"):
        check_crops(5, "native")
    check_crops(1, "native")
