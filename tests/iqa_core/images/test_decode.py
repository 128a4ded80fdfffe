"""Tests of iqa_core/images/decode.py: the contract, limits, damaged files."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from iqa_core.errors import ImageError, Status
from iqa_core.images import formats, turbo
from iqa_core.images.decode import decode_image, prepare_image
from iqa_core.limits import DEFAULT_MAX_PIXELS
from tests.iqa_core.images.files import (
    LOSSLESS,
    LOSSY,
    TURNS,
    corners,
    difference,
    encode,
    exif,
    failure,
    photo,
    png,
    preprocess,
    tiff,
)


def test_module_imports_no_deep_learning_library():
    code = (
        "import sys, iqa_core.images.decode; "
        "print({'torch', 'torchvision', 'open_clip', 'ray', 'pillow_heif'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_only_decodes_is_small():
    code = """if True:
        import io, re
        from pathlib import Path
        from PIL import Image
        from iqa_core.images.decode import decode_image
        from iqa_core.preprocess import Preprocess
        file = io.BytesIO()
        Image.radial_gradient("L").resize((1600, 1200)).convert("RGB").save(file, "JPEG")
        decode_image(file.getvalue(), Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3))
        print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10_000 < int(run.stdout) < 200_000


def test_native_resolution_keeps_every_pixel():
    image = photo(37, 23)
    decoded = decode_image(encode(image, "PNG"))
    assert np.array_equal(decoded.pixels, np.asarray(image))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.writeable  # torch.from_numpy warns otherwise
    assert (decoded.width, decoded.height) == (37, 23)


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_size_is_of_the_stored_image_and_pixels_of_the_tower(mode):
    decoded = decode_image(encode(photo(700, 500), "JPEG"), preprocess(20, 30), mode=mode)
    assert decoded.pixels.shape == (20, 30, 3)
    assert decoded.pixels.flags.c_contiguous
    assert (decoded.width, decoded.height) == (700, 500)


def test_unknown_mode_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match=r"mode \('quick'\) must be 'fast' or 'exact'"):
        decode_image(encode(photo(), "PNG"), mode="quick")
    with pytest.raises(ValueError, match=r"mode \('quick'\) must be"):
        prepare_image(photo(), mode="quick")


def test_prepare_image_equals_decode_image_and_leaves_its_input_alone():
    data = encode(photo(900, 640), "JPEG", exif=exif(6))
    opened = Image.open(io.BytesIO(data))
    before = (opened.size, opened.mode, dict(opened.info), opened.getexif()[0x0112])
    for tower in (None, preprocess()):
        for mode in ("fast", "exact"):
            prepared = prepare_image(opened, tower, mode=mode)
            decoded = decode_image(data, tower, mode="exact")
            assert difference(prepared.pixels, decoded.pixels).max() <= (mode == "fast") * 8
            assert (prepared.width, prepared.height) == (640, 900)
    assert (opened.size, opened.mode, dict(opened.info), opened.getexif()[0x0112]) == before


def test_prepare_image_reports_a_damaged_file_as_image_error():
    data = encode(photo(), "JPEG")
    opened = Image.open(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(ImageError) as caught:
        prepare_image(opened)
    assert caught.value.status == Status.DECODE_ERROR


def test_nothing_of_pillow_is_changed():
    before = (
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        list(Image.ID),
        dict(Image.OPEN),
        list(warnings.filters),
    )
    decode_image(encode(photo(), "JPEG"), preprocess())
    decode_image(encode(photo(), "HEIC"))
    failure(b"\xff\xd8\xff")
    after = (
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        list(Image.ID),
        dict(Image.OPEN),
        list(warnings.filters),
    )
    assert after == before


def test_threads_decode_as_one_does():
    files = [
        encode(photo(300 + i, 200, seed=i), fmt, **options)
        for i, (fmt, options) in enumerate({**LOSSLESS, **LOSSY}.values())
        if fmt != "ICO"
    ]
    alone = [decode_image(data, preprocess()).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda data: decode_image(data, preprocess()).pixels, files * 3)
    for i, pixels in enumerate(together):
        assert np.array_equal(pixels, alone[i % len(files)])


# Too large ---------------------------------------------------------------------------------------


def test_too_large_is_known_from_the_header():
    data = png(50_000, 8, 2, b"", height=40_000)  # no pixels behind it
    error = failure(data)
    assert error.status == Status.TOO_LARGE
    for word in ("50000 x 40000", "2,000,000,000", f"{DEFAULT_MAX_PIXELS:,}", "--max-pixels"):
        assert word in error.message


@pytest.mark.parametrize(("fmt", "options"), LOSSLESS.values(), ids=LOSSLESS)
def test_limit_is_inclusive(fmt, options):
    data = encode(corners(), fmt, **options)
    assert decode_image(data, max_pixels=96 * 64).width == 96
    assert failure(data, max_pixels=96 * 64 - 1).status == Status.TOO_LARGE


def test_limit_holds_for_opened_images_and_before_scaled_decoding():
    with pytest.raises(ImageError) as caught:
        prepare_image(corners(), max_pixels=100)
    assert caught.value.status == Status.TOO_LARGE
    data = encode(photo(512, 512), "JPEG")
    assert failure(data, preprocess(8), max_pixels=512 * 511).status == Status.TOO_LARGE


def test_icon_is_judged_before_pillow_decodes_it(monkeypatch):
    payload = png(30_000, 8, 2, b"", height=30_000)
    icon = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(payload), 22)
    opened = []
    monkeypatch.setitem(formats.PLUGINS, "ICO", opened.append)
    error = failure(icon + payload)
    assert (error.status, opened) == (Status.TOO_LARGE, [])
    assert "30000 x 30000" in error.message


@pytest.mark.parametrize("side", [12, 30])  # Pillow warns above its limit, fails above twice it
@pytest.mark.parametrize(
    ("fmt", "options"),
    [v for v in {**LOSSLESS, **LOSSY}.values() if v[0] != "ICO"] + [("GIF", {})],
    ids=str,
)
def test_limit_of_pillow_neither_warns_nor_fails(monkeypatch, fmt, options, side):
    data = encode(photo(side, side), fmt, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    if fmt == "WEBP" and side == 30:
        assert failure(data).status == Status.TOO_LARGE  # the plugin itself insists
    else:
        assert decode_image(data).pixels.shape == (side, side, 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_limit_of_pillow_does_not_cost_a_tiff_its_orientation(monkeypatch, orientation):
    data = encode(corners(48, 32), "TIFF", exif=exif(orientation))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    expected = TURNS[orientation](np.asarray(corners(48, 32)))
    assert np.array_equal(decode_image(data).pixels, expected)


# Not an image, or a damaged one -------------------------------------------------------------------


def test_empty():
    error = failure(b"")
    assert error.status == Status.EMPTY


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"no such key\n",
        b"BMW is a car, and so is this text, which goes on for a while",
        b"P4ragraph",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"PK\x03\x04" + bytes(40),
        b"\xd7\xcd\xc6\x9a" + bytes(40),  # WMF
        b"\0\0\2\0" + bytes(14) + b"\1\0\1\0\x18\0" + bytes(30),  # TGA
        b"\0\0\0\x18ftypisom" + bytes(40),  # MP4
        b"\xff\xd8",
        b"\0",
        bytes(100),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_not_an_image(data):
    assert failure(data).status == Status.UNSUPPORTED


def test_image_of_an_unreadable_kind_is_unsupported():
    jpeg = bytearray(encode(photo(), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    error = failure(bytes(jpeg))
    assert (error.status, "12-bit" in error.message) == (Status.UNSUPPORTED, True)
    odd = tiff(2, 1, 24, bytes(6))
    assert failure(odd).status == Status.UNSUPPORTED


TO_CUT = {
    **{name: encode(photo(), fmt, **options) for name, (fmt, options) in LOSSY.items()},
    "JPEG, grey": encode(photo().convert("L"), "JPEG"),
    "JPEG, CMYK": encode(photo().convert("CMYK"), "JPEG"),
    "PNG": encode(photo(), "PNG"),
    "PNG, palette": encode(photo().quantize(64), "PNG"),
    "WebP, lossless": encode(photo(), "WEBP", lossless=True),
    "GIF": encode(photo().quantize(64), "GIF"),
    "TIFF, raw": encode(photo(), "TIFF"),
    "TIFF, LZW": encode(photo(), "TIFF", compression="tiff_lzw"),
    "TIFF, directory first, deflate": tiff(
        160, 120, 8, zlib.compress(photo().convert("L").tobytes()), compression=8
    ),
    "BMP": encode(photo(), "BMP"),
    "JPEG 2000": encode(photo(), "JPEG2000"),
    "PPM": encode(photo(), "PPM"),
    "ICO": encode(photo(), "ICO", sizes=[(96, 64)]),
}


@pytest.mark.parametrize("action", ["error", "ignore"])  # on warnings: users run without "error"
@pytest.mark.parametrize("data", TO_CUT.values(), ids=TO_CUT)
def test_cut_file_is_never_an_image(data, action):
    assert decode_image(data, preprocess()).pixels.shape == (32, 32, 3)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        for eighth in range(1, 8):
            part = data[: len(data) * eighth // 8]
            for tower in (None, preprocess(8)):
                status = failure(part, tower).status
                assert status in (Status.DECODE_ERROR, Status.UNSUPPORTED), eighth
            assert eighth == 1 or status == Status.DECODE_ERROR


JPEGS = {
    "baseline": {},
    "grey": {"mode": "L"},
    "4:4:4": {"subsampling": 0},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 4},
    "restarts, each block": {"restart_marker_blocks": 1},
}


@pytest.mark.parametrize("tower", [None, preprocess(8)], ids=["native", "scaled"])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_cut_jpeg_is_found_out_when_padded_or_closed(options, tower):
    options = dict(options)
    data = encode(photo().convert(options.pop("mode", "RGB")), "JPEG", quality=90, **options)
    start = data.index(b"\xff\xda") + 20
    cuts = [start + int((len(data) - start) * share) for share in (0.1, 0.5, 0.8, 0.95)]
    restart = data.find(b"\xff\xd3", start)
    cuts += [restart, restart + 2] if restart >= 0 else []  # in front of and behind a marker
    for cut in cuts:
        part = data[:cut]
        for tail in (bytes(len(data)), b"\xff\xd9", b"\xff\xd9" + bytes(500)):
            assert failure(part + tail, tower).status == Status.DECODE_ERROR, (cut, len(tail))


def test_progressive_jpeg_cut_in_its_first_scan_is_found_out_when_closed():
    data = encode(photo(), "JPEG", quality=90, progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    part = data[: (first + second) // 2]
    assert failure(part + b"\xff\xd9").status == Status.DECODE_ERROR


@pytest.mark.parametrize("tower", [None, preprocess(8), preprocess(3)], ids=["1", "scaled", "more"])
@pytest.mark.parametrize("size", [(64, 64), (61, 47), (9, 15)])
@pytest.mark.parametrize("options", [*JPEGS.values(), {"progressive": True}], ids=str)
def test_complete_jpeg_that_ends_in_grey_is_an_image(options, size, tower):
    options = dict(options)
    image = Image.new(options.pop("mode", "RGB"), size, "#808080")
    pixels = decode_image(encode(image, "JPEG", **options) + b"trailer", tower).pixels
    assert (pixels == 128).all()


def test_camera_trailers_and_thumbnails_do_not_hide_the_end():
    thumbnail = encode(photo(32, 24), "JPEG")
    tags = exif(1).tobytes() + thumbnail  # brings its own markers, in front of the scan
    data = encode(photo(), "JPEG", exif=tags) + b"\xff\xd9\0trailer"
    assert decode_image(data).width == 160
    cut = data[: len(data) * 3 // 4] + bytes(5000)
    assert failure(cut).status == Status.DECODE_ERROR


@pytest.mark.parametrize("name", ["PNG", "PNG, palette", "TIFF, LZW", "JPEG 2000"])
def test_other_files_padded_with_zeros(name):
    data = TO_CUT[name]
    part = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    assert failure(part).status == Status.DECODE_ERROR


@pytest.mark.parametrize(
    "error",
    [
        OSError("broken\ndata"),
        SyntaxError("bad"),
        ValueError("bad"),
        struct.error("bad"),
        zlib.error("bad"),
        OverflowError("bad"),
        IndexError("bad"),
        KeyError("bad"),
        TypeError("bad"),
        ZeroDivisionError(),
        RecursionError("bad"),
        AssertionError(),
        EOFError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_pillow_raises_is_a_decode_error(monkeypatch, error):
    def fail(self):
        raise error

    data = encode(photo().convert("CMYK"), "JPEG")  # which Pillow decodes
    monkeypatch.setattr(JpegImageFile, "load", fail)
    caught = failure(data)
    assert caught.status == Status.DECODE_ERROR
    assert type(error).__name__ in caught.message


@pytest.mark.parametrize(
    "error", [MemoryError(), Image.DecompressionBombError("x"), Image.DecompressionBombWarning("x")]
)
def test_what_pillow_finds_too_large_is_too_large(monkeypatch, error):
    def fail(self):
        raise error

    data = encode(photo().convert("CMYK"), "JPEG")
    monkeypatch.setattr(JpegImageFile, "load", fail)
    assert failure(data).status == Status.TOO_LARGE


@pytest.mark.parametrize(
    ("error", "status"),
    [(MemoryError(), Status.TOO_LARGE), (RuntimeError("no decoder"), Status.DECODE_ERROR)],
    ids=["memory", "other"],
)
def test_whatever_simplejpeg_raises_is_an_image_error(monkeypatch, error, status):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(turbo.simplejpeg, "decode_jpeg", fail)
    assert failure(encode(photo(), "JPEG")).status == status


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("data", TO_CUT.values(), ids=TO_CUT)
def test_mutated_files_give_an_image_or_an_image_error(data):
    rng = np.random.default_rng(len(data))
    for round_ in range(24):
        mutated = bytearray(data)
        where = min(len(data), 400) if round_ % 2 else len(data)  # headers are the weak part
        for position in rng.integers(4, where, 6):
            mutated[position] = rng.integers(256)
        try:
            outcome = decode_image(bytes(mutated), preprocess(8), max_pixels=10**7).pixels.shape
        except ImageError as error:
            outcome = error.status
        assert outcome in {(8, 8, 3), Status.DECODE_ERROR, Status.UNSUPPORTED, Status.TOO_LARGE}
