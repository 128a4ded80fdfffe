"""GIF, BMP, AVIF, HEIC, JPEG 2000 and PPM: what is damage, what is none, and metadata."""

from __future__ import annotations

import io
import struct

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image

NOISE = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE).resize((160, 120), Image.Resampling.BICUBIC)
EXIF = b"Exif\0\0II*\0\x08\0\0\0\1\0\x0e\1\2\0\x40\0\0\0\x1a\0\0\0\0\0\0\0" + b"DESCRIBE" * 8
XMP = b"<x:xmpmeta>" + b"q" * 500 + b"</x:xmpmeta>"


def encode(fmt: str, image: Image.Image = PHOTO, **options) -> bytes:
    buffer = io.BytesIO()
    if fmt == "HEIC":
        pillow_heif.encode("RGB", image.size, image.tobytes(), buffer, **options)
    else:
        image.save(buffer, fmt, **options)
    return buffer.getvalue()


def failure(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(data)
    return raised.value


def same(data: bytes, other: bytes) -> bool:
    return np.array_equal(decode_image(data).pixels, decode_image(other).pixels)


def rle(height: int, body: bytes) -> bytes:
    """Return an RLE8 BMP of 16 columns."""
    palette = bytes(range(256)) * 4
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, 16, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


class TestGif:
    DATA = encode("GIF", PHOTO.quantize(64))

    def test_without_its_trailer(self):
        assert self.DATA.endswith(b"\0;")
        assert same(self.DATA[:-1], self.DATA)
        assert same(self.DATA + bytes(5000), self.DATA)

    @pytest.mark.parametrize("missing", [5, 20, 300, 3000])
    def test_cut_or_filled_with_zeros(self, missing):
        assert failure(self.DATA[:-missing]).status == "decode_error"
        assert failure(self.DATA[:-missing] + bytes(missing)).status == "decode_error"
        assert failure(self.DATA[:-missing] + b"\0;").status == "decode_error"

    def test_animation_cut_behind_its_first_frame(self):
        first = PHOTO.quantize(64)
        data = encode("GIF", first, save_all=True, append_images=[first.rotate(180)])
        assert same(data[: len(data) * 3 // 4], data)
        assert failure(data[: len(data) // 4]).status == "decode_error"

    def test_long_comments_and_xmp(self):
        comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 9000 + b"\0"
        xmp = b"!\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0"
        place = 13 + 3 * 2 ** ((self.DATA[10] & 7) + 1)
        assert same(self.DATA[:place] + comment + xmp + self.DATA[place:], self.DATA)


class TestBmp:
    DATA = encode("BMP")

    @pytest.mark.parametrize("stated", [0, 54, 2**32 - 1])
    def test_wrong_file_size_in_the_header(self, stated):
        assert same(self.DATA[:2] + struct.pack("<I", stated) + self.DATA[6:], self.DATA)
        assert same(self.DATA[:34] + struct.pack("<I", stated) + self.DATA[38:], self.DATA)

    def test_bytes_behind_the_end(self):
        assert same(self.DATA + bytes(1000), self.DATA)

    @pytest.mark.parametrize("missing", [1, 100, 20_000])
    def test_cut(self, missing):
        assert failure(self.DATA[:-missing]).status == "decode_error"

    def test_run_lengths_that_end_early(self):
        row = b"\x10\x55\0\0"
        assert (decode_image(rle(8, row * 8 + b"\0\1")).pixels == 0x55).any()
        assert failure(rle(8, row * 4 + b"\0\1")).status == "decode_error"
        assert failure(rle(8, row * 4)).status == "decode_error"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("fmt", ["AVIF", "HEIC"])
class TestHeif:
    def test_damaged_metadata(self, fmt):
        profile = {"icc_profile": b"PROFILE!" * 60} if fmt == "AVIF" else {}
        data = encode(fmt, exif=EXIF, xmp=XMP, **profile)
        for part in (EXIF[6:], EXIF[-64:], XMP, *profile.values()):
            place = data.index(part)
            for rubbish in (bytes(len(part)), b"\xff" * len(part), part[::-1]):
                assert same(data[:place] + rubbish + data[place + len(part) :], data)

    def test_large_metadata(self, fmt):
        large = encode(fmt, exif=EXIF + bytes(2_000_000), xmp=XMP * 5000)
        assert same(large, encode(fmt))

    def test_cut_and_padded(self, fmt):
        data = encode(fmt)
        for missing in (1, 2, 8, 64, len(data) // 2, len(data) - 20):
            assert failure(data[:-missing]).status == "decode_error", missing
        assert same(data + bytes(5000), data)
        assert same(data + b"trailer", data)

    def test_box_that_goes_beyond_the_end(self, fmt):
        data = encode(fmt)
        place = data.index(b"mdat") - 4
        if data[place : place + 4] != b"\0\0\0\1":
            longer = struct.pack(">I", len(data) - place + 1000)
            shorter = struct.pack(">I", 60)
            for size in (longer, shorter):
                changed = data[:place] + size + data[place + 4 : place + 200]
                assert failure(changed).status == "decode_error"


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}], ids=["JP2", "codestream"])
class TestJpeg2000:
    def test_end(self, options):
        data = encode("JPEG2000", **options)
        assert data.endswith(b"\xff\xd9")
        assert same(data + bytes(5000), data)
        for missing in (1, 2, 20, 3000):
            assert failure(data[:-missing]).status == "decode_error"
            if missing > 2:
                assert failure(data[:-missing] + bytes(missing)).status == "decode_error"
                assert failure(data[:-missing] + b"\xff\xd9").status == "decode_error"

    def test_metadata(self, options):
        data = encode("JPEG2000", **options)
        if not options:
            place = data.index(b"jp2c") - 4
            boxes = b"".join(
                struct.pack(">I", 8 + len(content)) + kind + content
                for kind, content in ((b"uuid", bytes(2_000_000)), (b"xml ", b"<"), (b"uinf", b""))
            )
            assert same(data[:place] + boxes + data[place:], data)
            assert same(data + boxes[:-3], data)
            header = data.index(b"jp2h")
            size = int.from_bytes(data[header - 4 : header], "big")
            for resolution in (b"\0\0\0\x0cres \0\0\0\1", b"\0\0\0\x12res \0\0\0\x0aresc\0\0"):
                longer = (
                    struct.pack(">I", size + len(resolution)) + data[header : header + size - 4]
                )
                odd = data[: header - 4] + longer + resolution + data[header + size - 4 :]
                assert same(odd, data)


def test_ppm_with_comments_and_bytes_behind_the_end():
    data = encode("PPM")
    commented = b"P6\n# " + b"c" * 50_000 + b"\n160 120\n255\n" + data[-160 * 120 * 3 :]
    assert same(commented + b"\n", data)
    assert failure(commented[:-1]).status == "decode_error"
