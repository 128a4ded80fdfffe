"""Tests of iqa_core/images/encoded.py: which images stay encoded for a device, and which do not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from iqa_core.errors import ImageError, Status
from iqa_core.images.decode import Decoded, decode_image
from iqa_core.images.encoded import EncodedJpeg, read_for_device
from iqa_core.preprocess import Preprocess

TOWER = Preprocess(size=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def jpeg(image, turn=1, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", exif=exif, quality=90, **options)
    return stream.getvalue()


def test_a_common_jpeg_stays_as_it_is(photos):
    data = jpeg(photos["china"], turn=6)
    found = read_for_device(data, TOWER)
    assert isinstance(found, EncodedJpeg)
    height, width = photos["china"].shape[:2]
    assert (found.width, found.height, found.turn) == (height, width, 6)
    assert found.data.tobytes() == data


def test_other_images_are_decoded_where_they_are_read(photos):
    for kind, mode in (("PNG", "RGB"), ("WEBP", "RGB"), ("JPEG", "CMYK")):
        stream = io.BytesIO()
        Image.fromarray(photos["china"]).convert(mode).save(stream, kind)
        found = read_for_device(stream.getvalue(), TOWER)
        assert isinstance(found, Decoded)
        np.testing.assert_array_equal(found.pixels, decode_image(stream.getvalue(), TOWER).pixels)


def test_extreme_ratios_are_left_to_the_cpu():
    thin = np.zeros((8, 9000, 3), np.uint8)
    assert isinstance(read_for_device(jpeg(thin), TOWER), Decoded)


def test_limits_and_empty_files(photos):
    with pytest.raises(ImageError, match="pixels are more than the limit of 1,000") as caught:
        read_for_device(jpeg(photos["china"]), TOWER, max_pixels=1000)
    assert caught.value.status == Status.TOO_LARGE
    with pytest.raises(ImageError, match="zero bytes"):
        read_for_device(b"", TOWER)


def test_a_file_that_is_cut_short_is_an_error(photos):
    data = jpeg(photos["china"])
    with pytest.raises(ImageError, match="cut short") as caught:
        read_for_device(data[: len(data) // 2], TOWER)
    assert caught.value.status == Status.DECODE_ERROR
