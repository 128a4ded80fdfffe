"""WebP: sizes that don't fit the file, and metadata that is damaged, cut or large."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image

PHOTO = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def encode(image: Image.Image = PHOTO, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, **options)
    return buffer.getvalue()


def riff(data: bytes) -> bytes:
    """Return the file with its size corrected."""
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    stated = len(content) if size is None else size
    return kind + stated.to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def failure(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(data)
    return raised.value


PLAIN = encode()
EXTENDED = encode(exif=b"Exif\0\0II*\0", icc_profile=b"profile", xmp=b"<xmp/>")
IMAGE_END = EXTENDED.index(b"EXIF")
PIXELS = np.asarray(PHOTO)


@pytest.mark.parametrize("data", [PLAIN, EXTENDED], ids=["plain", "extended"])
class TestSizes:
    @pytest.mark.parametrize("missing", [1, 2, 13, 200, 3000])
    def test_every_cut(self, data, missing):
        error = failure(data[:-missing])
        assert error.status == "decode_error"
        assert f"states {len(data):,} bytes and has {len(data) - missing:,}" in error.message

    def test_bytes_behind_the_end(self, data):
        for tail in (bytes(1), bytes(999), data, b"\xff" * 7):
            assert np.array_equal(decode_image(data + tail).pixels, PIXELS)

    def test_picture_beyond_the_end_of_its_chunk_list(self, data):
        place = data.index(b"VP8L") + 4
        size = int.from_bytes(data[place : place + 4], "little")
        longer = data[:place] + (size + 5000).to_bytes(4, "little") + data[place + 4 :]
        assert failure(longer).status == "decode_error"
        assert failure(riff(data[: place + 4 + size // 2])).status == "decode_error"


def test_end_filled_with_zeros_is_found_out_by_the_chunks_behind_the_picture():
    missing = len(EXTENDED) - IMAGE_END + 100
    assert failure(EXTENDED[:-missing] + bytes(missing)).status == "decode_error"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"EXIF", b"\xff" * 9001),
        chunk(b"EXIF", b""),
        chunk(b"EXIF", b"II*\0", size=2**31),
        chunk(b"XMP ", b"<x/>" * 700_000),
        chunk(b"ICCP", bytes(3_000_000)),
        chunk(b"QQQQ", b"unknown"),
        chunk(b"EXIF", b"odd length")[:-1] + b"!",
        b"EXI",
    ],
    ids=[
        "EXIF",
        "no EXIF",
        "EXIF beyond",
        "XMP",
        "profile",
        "unknown",
        "no padding",
        "three bytes",
    ],
)
def test_metadata_never_cost_a_picture(extra):
    data = riff(EXTENDED[:IMAGE_END] + extra)
    assert np.array_equal(decode_image(data).pixels, PIXELS)


@pytest.mark.parametrize(
    "options",
    [
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"},
        {"xmp": b'<x tiff:Orientation="6"/>'},
    ],
    ids=["EXIF", "XMP"],
)
def test_orientation_is_found(options):
    assert np.array_equal(decode_image(encode(**options)).pixels, np.rot90(PIXELS, -1))


def test_first_frame_of_an_animation_whose_rest_is_damaged():
    data = bytearray(encode(save_all=True, append_images=[PHOTO.rotate(90), PHOTO.rotate(180)]))
    assert np.array_equal(decode_image(bytes(data)).pixels, PIXELS)
    second = data.index(b"ANMF", data.index(b"ANMF") + 4)
    data[second + 40 : second + 400] = bytes(360)
    assert np.array_equal(decode_image(bytes(data)).pixels, PIXELS)


def test_transparency_is_kept():
    image = PHOTO.copy()
    image.putalpha(0)
    image.paste(PHOTO, (0, 0, 60, 40), Image.new("1", (60, 40), 0))
    assert (decode_image(encode(image, exif=b"Exif\0\0II*\0")).pixels == 255).all()
