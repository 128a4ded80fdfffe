"""PNG: damage that its checksums tell, what is no damage, and metadata of any size."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from iqa_core.errors import ImageError
from iqa_core.images import png
from iqa_core.images.decode import decode_image

PIXELS = np.random.default_rng(3).integers(0, 256, (90, 80, 3), dtype=np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def rows_of(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def build(
    stream: bytes,
    size=(80, 90),
    *,
    colour=2,
    bits=8,
    interlaced=0,
    before=b"",
    after=b"",
    step=4096,
) -> bytes:
    """Return a PNG of a zlib stream, cut into chunks of ``step`` bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced))
    data = b"".join(chunk(b"IDAT", stream[i : i + step]) for i in range(0, len(stream), step))
    return png.SIGNATURE + header + before + data + after + chunk(b"IEND", b"")


STREAM = zlib.compress(rows_of(PIXELS))
WHOLE = build(STREAM)


def failure(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(data)
    assert "\n" not in raised.value.message
    return raised.value


def without_checksum(data: bytes, kind: bytes) -> bytes:
    """Return the file with one bit of the first such chunk's checksum changed."""
    place = data.index(kind)
    length = int.from_bytes(data[place - 4 : place], "big")
    changed = bytearray(data)
    changed[place + 4 + length] ^= 1
    return bytes(changed)


class TestDamage:
    @pytest.mark.parametrize("bit", range(8))
    def test_any_changed_bit_of_the_pixel_data(self, bit):
        first = WHOLE.index(b"IDAT") + 4
        for place in range(first, len(WHOLE) - 12, 997):
            changed = bytearray(WHOLE)
            changed[place] ^= 1 << bit
            assert failure(bytes(changed)).status == "decode_error", place

    def test_large_blocks_overwritten_with_zeros(self):
        place = len(WHOLE) // 2
        for size in (16, 512, 4096):
            changed = WHOLE[:place] + bytes(size) + WHOLE[place + size :]
            assert failure(changed).status == "decode_error"

    @pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
    def test_checksums_of_what_decides_about_pixels(self, kind):
        palette = Image.fromarray(PIXELS).quantize(64)
        buffer = io.BytesIO()
        palette.save(buffer, "PNG", transparency=bytes(range(64)))
        assert decode_image(buffer.getvalue()).width == 80
        error = failure(without_checksum(buffer.getvalue(), kind))
        assert error.status == "decode_error"
        assert error.message.startswith("PNG image is damaged")

    @pytest.mark.parametrize("step", [50, 8192, 10**9])
    def test_checksum_of_zlib_under_right_checksums_of_chunks(self, step):
        changed = STREAM[:-1] + bytes([STREAM[-1] ^ 8])
        assert failure(build(changed, step=step)).status == "decode_error"
        assert np.array_equal(decode_image(build(STREAM, step=step)).pixels, PIXELS)

    @pytest.mark.parametrize("level", [0, 1, 9])
    def test_changed_bytes_under_right_checksums_of_chunks(self, level):
        rng = np.random.default_rng(level)
        stream = zlib.compress(rows_of(PIXELS // 9 * 9), level)
        for place in rng.integers(2, len(stream), 40):
            changed = bytearray(stream)
            changed[place] ^= 16
            assert failure(build(bytes(changed))).status == "decode_error", place

    def test_missing_end_and_every_cut(self):
        for missing in (*range(1, 14), 64, 1000, len(WHOLE) // 2, len(WHOLE) - 40):
            error = failure(WHOLE[:-missing])
            assert error.status == "decode_error", missing
            assert "cut short" in error.message

    @pytest.mark.parametrize("missing", [8, 12, 64, 4000])
    def test_end_filled_with_zeros(self, missing):
        assert failure(WHOLE[:-missing] + bytes(missing)).status == "decode_error"

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
    def test_fewer_rows_than_stated(self, share):
        few = rows_of(PIXELS[: int(len(PIXELS) * share)])
        error = failure(build(zlib.compress(few)))
        assert error.status == "decode_error"
        assert "before the last row" in error.message

    def test_fewer_rows_than_stated_of_an_interlaced_image(self):
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4)]
        passes += [(1, 0, 2, 2), (0, 1, 1, 2)]
        parts = [rows_of(PIXELS[top::down, left::across]) for left, top, across, down in passes]
        whole = build(zlib.compress(b"".join(parts)), interlaced=1)
        assert np.array_equal(decode_image(whole).pixels, PIXELS)
        less = build(zlib.compress(b"".join(parts[:-1])), interlaced=1)
        assert failure(less).status == "decode_error"

    def test_no_pixel_data_and_no_header(self):
        nothing = png.SIGNATURE + WHOLE[8:33] + chunk(b"IEND", b"")
        assert "no pixel data" in failure(nothing).message
        assert "first chunk" in failure(png.SIGNATURE + WHOLE[33:]).message

    def test_icon_whose_picture_is_a_damaged_png(self):
        icon = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 80, 90, 0, 0, 1, 32, len(WHOLE), 22)
        assert np.array_equal(decode_image(icon + WHOLE).pixels, PIXELS)
        damaged = without_checksum(WHOLE, b"IDAT")
        assert failure(icon + damaged).status == "decode_error"
        text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)))
        assert decode_image(icon + WHOLE[:33] + text + WHOLE[33:]).width == 80


class TestNoDamage:
    @pytest.mark.parametrize("tail", [bytes(1), bytes(100_000), b"\r\n", WHOLE, b"\xff" * 9])
    def test_bytes_behind_the_end(self, tail):
        assert np.array_equal(decode_image(WHOLE + tail).pixels, PIXELS)

    @pytest.mark.parametrize(
        "extra",
        [
            chunk(b"gAMA", struct.pack(">I", 45455)),
            chunk(b"cHRM", bytes(32)),
            chunk(b"sRGB", b"\0"),
            chunk(b"iCCP", b"p\0\0" + zlib.compress(b"profile")),
            chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
            chunk(b"tIME", bytes(7)),
            chunk(b"tEXt", b"Comment\0hello"),
            chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
            chunk(b"prVt", b"private"),
        ],
        ids=lambda data: data[4:8].decode(),
    )
    @pytest.mark.parametrize("place", [33, -12], ids=["in front", "behind"])
    def test_wrong_checksums_of_what_concerns_no_pixel(self, extra, place):
        data = WHOLE[:place] + extra[:-1] + bytes([extra[-1] ^ 1]) + WHOLE[place:]
        assert np.array_equal(decode_image(data).pixels, PIXELS)

    def test_wrong_checksum_of_the_end(self):
        assert np.array_equal(decode_image(without_checksum(WHOLE, b"IEND")).pixels, PIXELS)

    @pytest.mark.parametrize("extra", [b"\0" * 20, b"extra" * 100])
    def test_data_behind_the_last_row(self, extra):
        assert np.array_equal(decode_image(build(STREAM + extra)).pixels, PIXELS)
        more = zlib.compress(rows_of(PIXELS) + bytes(1000))
        assert np.array_equal(decode_image(build(more)).pixels, PIXELS)

    @pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
    def test_black_images(self, colour, channels):
        black = (b"\0" + bytes(50 * channels)) * 40
        decoded = decode_image(build(zlib.compress(black), (50, 40), colour=colour))
        assert decoded.pixels.max() == (255 if channels in (2, 4) else 0)  # alpha 0 is white
        less = build(zlib.compress(black[: len(black) // 2]), (50, 40), colour=colour)
        assert failure(less).status == "decode_error"

    def test_pixel_data_interrupted_by_other_chunks(self):
        half = len(STREAM) // 2
        text = chunk(b"tEXt", b"a\0b")
        middle = chunk(b"IDAT", STREAM[:half]) + text + chunk(b"IDAT", STREAM[half:])
        data = WHOLE[:33] + chunk(b"IDAT", b"") + middle + chunk(b"IEND", b"")
        assert np.array_equal(decode_image(data).pixels, PIXELS)

    @pytest.mark.parametrize("control", [b"\0" * 4, b"\0\0\0\7"])
    def test_damaged_animation_shows_its_default_image(self, control):
        frame = chunk(b"fcTL", control + bytes(22))
        animation = chunk(b"acTL", struct.pack(">II", 9, 0)) + frame
        later = chunk(b"fdAT", b"\0\0\0\1nonsense") + frame[:-2] + b"xx"
        data = build(STREAM, before=animation, after=later)
        assert np.array_equal(decode_image(data).pixels, PIXELS)


class TestKindsNotRead:
    def test_apples_own_kind(self):
        data = png.SIGNATURE + chunk(b"CgBI", b"P\0 \6") + WHOLE[8:]
        error = failure(data)
        assert (error.status, "convert it to PNG" in error.message) == ("unsupported", True)

    def test_unknown_chunk_that_the_format_calls_critical(self):
        error = failure(build(STREAM, before=chunk(b"QQQQ", b"")))
        assert (error.status, "QQQQ" in error.message) == ("unsupported", True)
        assert (
            failure(build(STREAM, before=chunk(b"QQQQ", b"")[:-1] + b"!")).status == "decode_error"
        )


def xmp(orientation: int, padding: int) -> bytes:
    text = b'<x tiff:Orientation="%d"/>' % orientation
    return text + b" " * padding


def raw_profile(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return b"\nexif\n      26\n" + exif.tobytes().hex().encode()


LARGE = b"device" * 500_000
NODES = b"node " * 420_000  # 2.1 MB, as of an image tool's workflow
METADATA = {
    "text": chunk(b"tEXt", b"parameters\0" + LARGE),
    "text of 80 MB in all": chunk(b"tEXt", b"a\0" + LARGE) * 27,
    "compressed text": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(LARGE)),
    "compressed text, unknown method": chunk(b"zTXt", b"prompt\0\7" + LARGE),
    "compressed text, damaged": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(LARGE)[:99]),
    "international": chunk(b"iTXt", b"a\0\1\0de\0b\0" + zlib.compress(LARGE)),
    "XMP, plain": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LARGE),
    "XMP, compressed": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LARGE)),
    "XMP, cut": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1"),
    "profile": chunk(b"iCCP", b"device\0\0" + zlib.compress(LARGE)),
    "profile, unknown method": chunk(b"iCCP", b"device\0\7" + LARGE),
    "profile, empty": chunk(b"iCCP", b""),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short chromaticities": chunk(b"cHRM", b"\0"),
    "short resolution": chunk(b"pHYs", b"\0"),
    "short intent": chunk(b"sRGB", b""),
    "EXIF": chunk(b"eXIf", b"MM\0*" + b"\xff" * 70_000),
    "ImageMagick's EXIF": chunk(b"tEXt", b"Raw profile type exif\0no hexadecimal\n\n\nzz"),
    "key without an end": chunk(b"tEXt", b"k" * 200),
    "compressed workflow": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(NODES)),
    "international workflow": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(NODES)),
    "profile of 2 MB": chunk(b"iCCP", b"device\0\0" + zlib.compress(NODES)),
    "70 keys of 1 MiB each": b"".join(
        chunk(b"tEXt", b"k%d\0" % number + b"y" * 2**20) for number in range(70)
    ),
}


class TestMetadata:
    @pytest.mark.parametrize("extra", METADATA.values(), ids=METADATA)
    @pytest.mark.parametrize("place", [33, -12], ids=["in front", "behind"])
    def test_none_costs_a_picture(self, extra, place):
        data = WHOLE[:place] + extra + WHOLE[place:]
        assert np.array_equal(decode_image(data).pixels, PIXELS)

    def test_limits_of_pillow_are_left_alone(self):
        before = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
        decode_image(WHOLE[:33] + METADATA["compressed text"] + WHOLE[33:])
        assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)

    @pytest.mark.slow
    def test_text_is_not_even_inflated(self):
        bomb = zlib.compressobj(9)
        packed = b"".join(bomb.compress(bytes(1 << 22)) for _ in range(100)) + bomb.flush()
        data = WHOLE[:33] + chunk(b"zTXt", b"a\0\0" + packed) + WHOLE[33:]
        began = time.process_time()
        decode_image(data)
        assert time.process_time() - began < 0.3  # 400 MB of zeros take longer

    @pytest.mark.parametrize("place", [33, -12], ids=["in front", "behind"])
    @pytest.mark.parametrize(
        "extra",
        [
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6, 0)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6, 2_000_000)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6, 9))),
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(6))),
            chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(6)),
        ],
        ids=["XMP", "long XMP", "compressed XMP", "compressed EXIF", "EXIF"],
    )
    def test_orientation_is_still_found_in_text(self, extra, place):
        decoded = decode_image(WHOLE[:place] + extra + WHOLE[place:])
        assert np.array_equal(decoded.pixels, np.rot90(PIXELS, -1))
