"""The fast resize: near Pillow's, and the same whatever computes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from iqa_core.images import resample
from iqa_core.images.resample import resize_part, wrap_pixels
from tests.iqa_core.images.files import difference

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PARTS = [
    ((300, 200), (0, 0, 300, 200), (60, 40)),
    ((300, 200), (31.5, 0, 260.25, 199.9), (64, 64)),
    ((301, 203), (0.125, 0.5, 300.875, 202.625), (224, 20)),
    ((50, 40), (10, 5, 40, 35), (90, 90)),  # enlarged
    ((50, 40), (10, 5, 40, 35), (30, 30)),  # neither
    ((64, 500), (0, 100, 64, 400), (64, 75)),
    ((1, 300), (0, 120, 1, 180), (32, 32)),
]


@pytest.mark.parametrize(("size", "box", "target"), PARTS)
@pytest.mark.parametrize("kernel", [BICUBIC, BILINEAR])
@pytest.mark.parametrize("height_first", [False, True])
def test_as_pillow_pass_by_pass(size, box, target, kernel, height_first):
    image = random_image(*size)
    resized = resize_part(image, box, target, kernel, height_first=height_first)
    expected = image
    for axis in (1, 0) if height_first else (0, 1):
        step, part = list(expected.size), [0.0, 0.0, *expected.size]
        step[axis], part[axis], part[axis + 2] = target[axis], box[axis], box[axis + 2]
        expected = expected.resize(step, kernel, box=part)
    assert (resized.mode, resized.size) == ("RGB", target)
    off = difference(np.asarray(resized), np.asarray(expected))
    assert off.max() <= 2
    assert (off > 0).mean() < 0.05


@pytest.mark.parametrize(("size", "box", "target"), PARTS)
@pytest.mark.parametrize("height_first", [False, True])
def test_wrapped_pixels_give_the_same(size, box, target, height_first):
    image = random_image(*size)
    options = {"height_first": height_first}
    expected = resize_part(image, box, target, BICUBIC, **options)
    fourth = np.random.default_rng(1).integers(0, 256, (*size[::-1], 1), dtype=np.uint8)
    pixels = np.concatenate([np.asarray(image), fourth], axis=-1)
    before = pixels.copy()
    resized = resize_part(wrap_pixels(pixels), box, target, BICUBIC, **options)
    assert resized.mode == "RGB"
    assert np.array_equal(np.asarray(resized), np.asarray(expected))
    assert np.array_equal(pixels, before)

    grey = np.ascontiguousarray(np.asarray(image)[..., :1])
    resized = resize_part(wrap_pixels(grey), box, target, BICUBIC, **options)
    assert resized.mode == "L"
    assert np.array_equal(np.asarray(resized), np.asarray(expected)[..., 0])


def test_wrapped_pixels_are_no_copy():
    pixels = np.zeros((20, 30, 4), np.uint8)
    image = wrap_pixels(pixels)
    pixels[:] = 7
    assert image.getpixel((29, 19)) == (7, 7, 7, 7)


@pytest.mark.parametrize(("size", "box", "target"), PARTS)
def test_without_cykooz(monkeypatch, size, box, target):
    pytest.importorskip("cykooz_resizer")
    image = random_image(*size)
    wrapped = np.concatenate([np.asarray(image)] * 2, axis=-1)[..., :4].copy()
    expected = np.asarray(resize_part(image, box, target, BICUBIC))
    monkeypatch.setattr(resample, "cykooz", None)
    for source in (image, wrap_pixels(wrapped)):
        resized = resize_part(source, box, target, BICUBIC)
        assert resized.mode == "RGB"
        off = difference(np.asarray(resized), expected)
        assert off.max() <= 2
        assert (off > 0).mean() < 0.05


@pytest.mark.parametrize(("size", "box", "target"), PARTS)
def test_every_instruction_set_gives_the_same_bits(size, box, target):
    cykooz = pytest.importorskip("cykooz_resizer")
    image = random_image(*size)
    left, top, right, bottom = box
    results = []
    for extensions in (cykooz.CpuExtensions.none, None):
        resizer = cykooz.Resizer()
        if extensions is not None:
            resizer.cpu_extensions = extensions
        for mode in ("RGB", "L", "CMYK"):
            resized = Image.new(mode, target)
            crop = cykooz.CropBox(left, top, right - left, bottom - top)
            kernel = cykooz.ResizeAlg.convolution(cykooz.FilterType.catmull_rom)
            options = cykooz.ResizeOptions(resize_alg=kernel, crop_box=crop)
            resizer.resize_pil(image.convert(mode), resized, options)
            results.append(resized.tobytes())
    assert results[:3] == results[3:]


def test_threads():
    images = [random_image(200 + i, 150, seed=i) for i in range(16)]

    def work(image):
        return resize_part(image, (0, 0, *image.size), (64, 48), BICUBIC).tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, images * 5)) == [work(image) for image in images] * 5
