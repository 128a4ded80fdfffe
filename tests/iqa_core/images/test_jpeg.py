"""JPEG: markers that are out of place, and metadata that Pillow can't parse."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from iqa_core.errors import ImageError
from iqa_core.images import jpeg
from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess

TOWER = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3)


def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((240, 180), Image.Resampling.BICUBIC)


def encode(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes, data: bytes = b"") -> bytes:
    data = data or DATA
    return data[:2] + b"".join(segments) + data[2:]


def failure(data: bytes, *args) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(data, *args)
    return raised.value


DATA = encode(photo())
PIXELS = decode_image(DATA).pixels
RESTARTS = encode(photo(), restart_marker_blocks=5)


@pytest.mark.parametrize("tower", [None, TOWER], ids=["native", "scaled"])
class TestDamage:
    @pytest.mark.parametrize("data", [DATA, RESTARTS], ids=["plain", "restarts"])
    @pytest.mark.parametrize("marker", [0x02, 0x3A, 0xBF, 0xC0, 0xC8, 0xD3, 0xD8, 0xE0, 0xFD, 0xFE])
    def test_marker_among_the_data(self, marker, data, tower):
        start = data.index(b"\xff\xda") + 20
        for share in (0.2, 0.9):
            place = start + int((len(data) - start) * share)
            changed = data[:place] + bytes([0xFF, marker]) + data[place + 2 :]
            assert failure(changed, tower).status == "decode_error"

    def test_message_names_the_marker(self, tower):
        half = len(RESTARTS) // 2
        changed = RESTARTS[:half] + b"\xff\x3a" + RESTARTS[half + 2 :]
        assert "interrupted by the bytes FF 3A" in failure(changed, tower).message

    def test_bad_sector(self, tower):
        half = len(RESTARTS) // 2
        for sector in (bytes(512), b"\xff" * 512, b""):
            changed = RESTARTS[:half] + sector + RESTARTS[half + 512 :]
            assert failure(changed, tower).status == "decode_error"

    def test_lost_restart_interval(self, tower):
        first, third = RESTARTS.index(b"\xff\xd1"), RESTARTS.index(b"\xff\xd3")
        for changed in (
            RESTARTS[:first] + RESTARTS[third:],
            RESTARTS[:first] + RESTARTS[third:first:-1] + RESTARTS[third:],
        ):
            assert failure(changed, tower).status == "decode_error"

    def test_start_of_another_file_in_the_data(self, tower):
        half = len(DATA) // 2
        assert failure(DATA[:half] + DATA, tower).status == "decode_error"


@pytest.mark.parametrize(
    "data",
    [
        RESTARTS,
        encode(photo(), restart_marker_blocks=1),
        encode(photo(), progressive=True, restart_marker_rows=1),
        encode(photo(), progressive=True),
        encode(photo().convert("CMYK"), restart_marker_rows=1),
    ],
    ids=["restarts", "each block", "progressive, restarts", "progressive", "CMYK"],
)
@pytest.mark.parametrize("tail", [b"", bytes(999), b"\xff\xd9", b"\xff\x3a\xff\xd3", DATA])
def test_sound_files_pass_with_anything_behind_them(data, tail):
    assert decode_image(data + tail).pixels.shape == (180, 240, 3)


def test_fill_bytes_in_front_of_the_end_marker():
    filled = DATA[:-2] + b"\xff" * 7 + DATA[-2:]
    assert np.array_equal(decode_image(filled).pixels, PIXELS)


METADATA = {
    "profile cut in its header": segment(0xE2, b"ICC_PROFILE\0"),
    "profile that is no profile": segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\xff" * 60_000),
    "profile in 255 parts": b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(60_000)) for i in range(1, 256)
    ),
    "JFIF cut": segment(0xE0, b"JFIF\0"),
    "JFXX thumbnail": segment(0xE0, b"JFXX\0\x10" + b"\xff\xd8\xff\xd9"),
    "Adobe cut": segment(0xEE, b"Adobe"),
    "Photoshop cut": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
    "Photoshop resolution cut": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0\0\4abcd"),
    "EXIF of nothing": segment(0xE1, b"Exif\0\0"),
    "EXIF of nonsense": segment(0xE1, b"Exif\0\0" + b"\xff" * 50_000),
    "EXIF with an absurd count": segment(
        0xE1, b"Exif\0\0II*\0\x08\0\0\0\2\0\x1a\1\5\0\xff\xff\xff\x7f\0\0\0\0"
    ),
    "multi-picture index cut": segment(0xE2, b"MPF\0"),
    "comments": segment(0xFE, b"\xff" * 65_000) * 40,
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff\0" * 30_000),
    "an empty segment": segment(0xEF, b""),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("extra", METADATA.values(), ids=METADATA)
def test_metadata_never_cost_a_picture(extra):
    assert np.array_equal(decode_image(with_segments(extra)).pixels, PIXELS)
    assert np.array_equal(decode_image(with_segments(extra), TOWER).pixels, SMALL)


SMALL = decode_image(DATA, TOWER).pixels


def test_colours_follow_the_segments_that_decide_about_them():
    rgb = encode(photo(), keep_rgb=True)  # Adobe's segment says that it is no YCbCr
    assert b"Adobe" in rgb
    kept, info = jpeg.without_metadata(with_segments(METADATA["comments"], data=rgb))
    assert (b"Adobe" in kept, len(kept), info) == (True, len(rgb), {})
    assert np.abs(decode_image(rgb).pixels.astype(int) - PIXELS).mean() < 3


def test_orientation_survives_in_any_place():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = segment(0xE1, exif.tobytes())
    for data in (
        with_segments(turned),
        with_segments(METADATA["comments"], turned, METADATA["Adobe cut"]),
        with_segments(segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')),
    ):
        assert np.array_equal(decode_image(data).pixels, np.rot90(PIXELS, -1))


def test_header_that_leads_nowhere_is_left_to_pillow():
    for data in (
        DATA[:2] + b"\xff\xe1\xff\xff" + DATA[2:300],
        DATA[:2] + b"\xff\xe0\0\0",
        b"\xff\xd8\xff",
    ):
        kept, info = jpeg.without_metadata(data)
        assert (kept, info) == (data, {})
        assert failure(data).status == "decode_error"
