"""Tests of iqa_core/images/resize.py: equal to open_clip's transform, and near it where fast."""

from __future__ import annotations

import io

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from iqa_core.images import resize, turbo
from iqa_core.images.decode import decode_image, prepare_image
from iqa_core.preprocess import Preprocess
from tests.iqa_core.images.files import (
    RED,
    TURNS,
    difference,
    encode,
    exif,
    photo,
    preprocess,
)
from tests.memory import peak_megabytes, reset_peak


def open_clip_pixels(image: Image.Image, tower: Preprocess) -> np.ndarray:
    """Run open_clip's own transform without its last two steps, ToTensor and Normalize."""
    config = PreprocessCfg(
        size=tower.size,
        interpolation=tower.interpolation,
        resize_mode=tower.resize_mode,
        fill_color=tower.fill_color,
    )
    for step in image_transform_v2(config, is_train=False).transforms[:-2]:
        image = step(image)
    return np.asarray(image)


TOWERS = {
    "shortest": preprocess(224),
    "shortest, bilinear": preprocess(225, interpolation="bilinear"),
    "shortest, wide": preprocess(96, 160),
    "shortest, tall, bilinear": preprocess(161, 97, interpolation="bilinear"),
    "longest": preprocess(224, resize_mode="longest"),
    "longest, filled": preprocess(225, resize_mode="longest", fill_color=127),
    "longest, wide": preprocess(90, 161, resize_mode="longest", interpolation="bilinear"),
    "squash": preprocess(224, resize_mode="squash"),
    "squash, tall": preprocess(130, 75, resize_mode="squash", interpolation="bilinear"),
}
SIZES = [(1, 1), (2, 1), (1, 200), (20, 3000), (3000, 20), (7, 5), (31, 33), (223, 225), (224, 224)]
SIZES += [(225, 224), (224, 225), (96, 160), (160, 96), (333, 500), (640, 427), (1023, 767)]


@pytest.mark.parametrize("tower", TOWERS.values(), ids=TOWERS)
def test_exact_equals_open_clip_bit_for_bit(tower):
    rng = np.random.default_rng(7)
    for width, height in [*SIZES, *rng.integers(1, 400, (25, 2)).tolist()]:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        ours = prepare_image(image, tower, mode="exact").pixels
        assert ours.shape == (*tower.size, 3)
        if tower.resize_mode == "longest" and max(width, height) > 150 * min(width, height):
            continue  # open_clip may fail here: see the test on sides that round to nothing
        assert np.array_equal(ours, open_clip_pixels(image, tower)), (width, height)


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_exact_equals_open_clip_at_extreme_aspect(size):
    image = photo(*size)
    for tower in (preprocess(224), preprocess(224, resize_mode="squash")):
        ours = prepare_image(image, tower, mode="exact").pixels
        reference = open_clip_pixels(image, tower)
        # 224 x 448,000 is above the largest resized image that is made only to be cropped
        assert difference(ours, reference).max() <= (tower.resize_mode == "shortest")


def test_exact_equals_open_clip_from_an_oriented_file():
    data = encode(photo(400, 300), "JPEG", exif=exif(6))
    native = decode_image(data)
    tower = preprocess(64)
    expected = open_clip_pixels(Image.fromarray(native.pixels), tower)
    assert np.array_equal(decode_image(data, tower, mode="exact").pixels, expected)


def test_longest_side_that_rounds_to_nothing_is_one_pixel():
    tower = preprocess(224, resize_mode="longest", fill_color=9)
    with pytest.raises(ValueError, match="must be > 0"):
        open_clip_pixels(photo(1, 2000), tower)
    pixels = prepare_image(Image.new("RGB", (1, 2000), RED), tower, mode="exact").pixels
    assert (pixels[:, 111] == RED).all()
    assert (np.delete(pixels, 111, axis=1) == 9).all()


BOUNDED = [(3, 61), (61, 3), (2, 90), (40, 7), (37, 1500), (5, 5)]
BOUNDED += [
    (60, 2000),
    (2000, 60),
    (130, 4001),
]  # reduced: Pillow 13 takes tall ones by height first
BOUNDED += [(7, 90_001), (90_001, 7), (5, 100_003)]  # far away, a float32 box knows 1/128 pixel


@pytest.mark.parametrize("size", BOUNDED, ids=str)
@pytest.mark.parametrize(
    "tower",
    [preprocess(16), preprocess(40, 64), preprocess(48, interpolation="bilinear")],
    ids=["square", "wide", "bilinear"],
)
def test_bounded_way_is_as_good_as_exact(monkeypatch, tower, size):
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = prepare_image(image, tower, mode="exact").pixels
    monkeypatch.setattr(resize, "MAX_INTERMEDIATE", 0)
    off = difference(prepare_image(image, tower, mode="exact").pixels, expected)
    assert off.max() <= 2
    assert (off > 0).mean() < 0.01


@pytest.mark.parametrize("mode", ["fast", "exact"])
@pytest.mark.parametrize("turned", [False, True])
def test_absurd_intermediate_is_never_made(mode, turned):
    column = np.random.default_rng(5).integers(0, 256, (20_000, 1, 3), dtype=np.uint8)
    middle = column[9_980:10_020]  # of even length, so it has the same centre
    if turned:
        column, middle = column.transpose(1, 0, 2), middle.transpose(1, 0, 2)
    tower = preprocess(224)
    reset_peak()
    before = peak_megabytes()
    pixels = prepare_image(Image.fromarray(column), tower, mode=mode).pixels
    assert peak_megabytes() - before < 200  # all of it would be 4,000
    expected = open_clip_pixels(Image.fromarray(middle), tower)
    assert difference(pixels, expected).max() <= 1


# Fast --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS.values(), ids=TOWERS)
def test_fast_without_scaled_decoding_is_exact_but_for_rounding(tower):
    rng = np.random.default_rng(11)
    for number, size in enumerate([*SIZES, *np.exp(1 + 5.5 * rng.random((40, 2))).astype(int)]):
        width, height = (int(side) for side in size)
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.getexif()[0x0112] = 1 + number % 8
        fast, exact = (prepare_image(image, tower, mode=mode).pixels for mode in ("fast", "exact"))
        off = difference(fast, exact)
        assert off.max() <= 2, (width, height)
        # 16-bit coefficients; in another order of the two passes, a tenth would differ or more
        assert (off > 0).mean() < 0.06, (width, height)
        assert fast.flags.c_contiguous
        assert fast.flags.writeable


def test_fast_uses_scaled_decoding_and_stays_near_exact():
    data = encode(photo(1607, 1203), "JPEG", quality=92)
    tower = preprocess(64)
    exact = decode_image(data, tower, mode="exact").pixels
    fast = decode_image(data, tower).pixels
    off = difference(fast, exact)
    assert 0 < off.max() <= 6  # 0 would mean that nothing was scaled
    assert off.mean() < 0.5


@pytest.fixture
def scales(monkeypatch):
    """The scale of each JPEG that is decoded, by simplejpeg or by Pillow."""
    scales = []
    draft, decode_jpeg = JpegImageFile.draft, turbo.simplejpeg.decode_jpeg

    def spy_on_pillow(self, mode, size):
        before = self.size
        drafted = draft(self, mode, size)
        scales.append(("Pillow", round(before[0] / self.size[0])))
        return drafted

    def spy_on_simplejpeg(data, *args, **options):
        pixels = decode_jpeg(data, *args, **options)
        width = Image.open(io.BytesIO(data)).width
        scales.append(("simplejpeg", round(width / pixels.shape[1])))
        return pixels

    monkeypatch.setattr(JpegImageFile, "draft", spy_on_pillow)
    monkeypatch.setattr(turbo.simplejpeg, "decode_jpeg", spy_on_simplejpeg)
    return scales


@pytest.mark.parametrize(
    ("colours", "decoder"), [("RGB", "simplejpeg"), ("L", "simplejpeg"), ("CMYK", "Pillow")]
)
def test_fast_decodes_at_the_largest_scale_that_keeps_twice_the_target(scales, colours, decoder):
    def jpeg(width, height, **options):
        return encode(photo(width, height).convert(colours), "JPEG", **options)

    for side, scale in {63: 1, 64: 1, 127: 1, 128: 2, 255: 2, 256: 4, 511: 4, 512: 8}.items():
        scales.clear()
        decode_image(jpeg(side, side + 9), preprocess(32))
        assert scales == [(decoder, scale)], side
    # turned, 256 x 128 covers a tower of 64 x 32 with 64 x 128 pixels, not with 64 x 32
    for orientation, scale in {1: 2, 3: 2, 5: 1, 6: 1, 8: 1}.items():
        scales.clear()
        decode_image(jpeg(256, 128, exif=exif(orientation)), preprocess(32, 64))
        assert scales == [(decoder, scale)], orientation
    scales.clear()
    decode_image(jpeg(512, 512), preprocess(32), mode="exact")
    decode_image(jpeg(512, 512))
    assert scales in ([], [("simplejpeg", 1)])


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("size", [(71, 71), (71, 135), (135, 71)])
def test_fast_knows_that_a_scaled_jpeg_ends_within_its_last_pixel(size, orientation):
    # 71 = 8 * 8 + 7: libjpeg gives 9 pixels for 8.875. On a steep ramp, an eighth of a pixel shows.
    y, x = np.mgrid[: size[1], : size[0]]
    ramp = np.stack([255 * x / size[0], 255 * y / size[1], 0 * x], axis=-1)
    image = Image.fromarray(np.rint(ramp).astype(np.uint8))
    data = encode(image, "JPEG", quality=100, subsampling=0, exif=exif(orientation))
    tower = preprocess(4, resize_mode="squash")
    off = difference(
        decode_image(data, tower).pixels, decode_image(data, tower, mode="exact").pixels
    )
    assert off.max() <= 1


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("size", [(1601, 1207), (1207, 1601)])
def test_fast_gives_the_crop_of_exact_in_every_orientation(size, orientation):
    data = encode(photo(*size), "JPEG", quality=92, exif=exif(orientation))
    for tower in (preprocess(40), preprocess(30, 50), preprocess(40, resize_mode="longest")):
        fast, exact = (decode_image(data, tower, mode=mode) for mode in ("fast", "exact"))
        assert (fast.width, fast.height) == (exact.width, exact.height)
        assert difference(fast.pixels, exact.pixels).mean() < 0.5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_fast_on_grey_and_cmyk_jpeg(mode):
    data = encode(photo(900, 700).convert(mode), "JPEG", quality=92)
    fast, exact = (decode_image(data, preprocess(), mode=m).pixels for m in ("fast", "exact"))
    assert difference(fast, exact).mean() < 0.7


def test_fast_never_takes_an_embedded_thumbnail():
    data = encode(photo(800, 600), "HEIC", quality=90, thumbnails=[256])
    fast, exact = (decode_image(data, preprocess(), mode=m) for m in ("fast", "exact"))
    assert (fast.width, fast.height) == (800, 600)
    assert difference(fast.pixels, exact.pixels).mean() < 0.5


def test_fast_enlarges_as_exact_does():
    for size in [(5, 7), (31, 90), (1, 1), (1, 300)]:
        image = photo(*size)
        fast, exact = (prepare_image(image, preprocess(), mode=m).pixels for m in ("fast", "exact"))
        assert difference(fast, exact).max() <= 1
