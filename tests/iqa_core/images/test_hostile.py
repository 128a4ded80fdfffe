"""Thousands of damaged and hostile files: no crash, no hang, bounded memory, a status for each."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess
from tests.memory import peak_megabytes

ROOT = Path(__file__).parents[3]
PREPROCESS = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3)
MUTANTS = 2400
MODULE = "tests.iqa_core.images.test_hostile"
FORMATS = {
    "JPEG": {"quality": 80},
    "PNG": {},
    "WEBP": {"quality": 70},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "JPEG2000": {},
    "AVIF": {"quality": 50},
}


def seeds() -> list[bytes]:
    """Return one small file of each format, with a photograph's statistics."""
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(12, 16, 3)).cumsum(0).cumsum(1)
    pixels = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    image = Image.fromarray(pixels).resize((160, 120))
    files = []
    for name, options in FORMATS.items():
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        files.append(buffer.getvalue())
    progressive, animated = io.BytesIO(), io.BytesIO()
    image.save(progressive, "JPEG", progressive=True)
    image.save(animated, "GIF", save_all=True, append_images=[image.rotate(90)] * 3)
    return [*files, progressive.getvalue(), animated.getvalue()]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, insert, or overwrite lengths, as damage and fuzzers do."""
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = min(int(rng.expovariate(6) * len(mutant)), max(len(mutant) - 1, 0))  # headers first
        kind = rng.randrange(6)
        if kind == 0:
            mutant[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutant[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del mutant[place : place + rng.randrange(1, 64)]
        elif kind == 3:
            mutant[place:place] = rng.randbytes(rng.randrange(1, 64))
        elif kind == 4:
            mutant[place:place] = mutant[place : place + rng.randrange(1, 512)]
        else:
            del mutant[max(place, 8) :]
        if not mutant:
            return b""
    return bytes(mutant)


def decode_mutants() -> dict[str, object]:
    """Decode them all in this process; return the counts, the slowest, and the memory."""
    rng = random.Random(1)
    counts: dict[str, int] = {}
    slowest = 0.0
    files = seeds()
    for number in range(MUTANTS):
        data = mutate(files[number % len(files)], rng)
        began = time.monotonic()
        try:
            image = decode_image(data, PREPROCESS, max_pixels=20_000_000)
            status = "ok" if image.pixels.shape == (224, 224, 3) else "wrong shape"
        except ImageError as error:
            status = error.status.value
        counts[status] = counts.get(status, 0) + 1
        slowest = max(slowest, time.monotonic() - began)
    megabytes = peak_megabytes()
    return {"counts": counts, "slowest": slowest, "megabytes": megabytes}


@pytest.mark.slow
def test_mutants_neither_crash_nor_hang_nor_fill_the_memory():
    # In a process of its own, which a crash of a decoder would end.
    done = subprocess.run(
        [sys.executable, "-m", MODULE], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["counts"].values()) == MUTANTS
    assert set(found["counts"]) <= {"ok", "decode_error", "unsupported", "too_large", "empty"}
    assert found["counts"]["decode_error"] > 100
    assert found["slowest"] < 20
    assert found["megabytes"] < 1500


def png(width: int, height: int) -> bytes:
    """Return a PNG of a stated size whose data are those of one black row, or of a part of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1 + 3 * min(width, 100_000))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


JPEG = saved(Image.effect_noise((200, 150), 60), "JPEG")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "empty"),
        (b"<html><body>404</body></html>", "unsupported"),
        (b"\x00" * 5000, "unsupported"),
        (png(33_000, 33_000), "too_large"),  # a billion pixels in a small file
        (png(2**31 - 1, 2**31 - 1), "too_large"),
        (png(1, 1_000_000_000), "too_large"),
        *[(JPEG[: len(JPEG) * part // 8], "decode_error") for part in range(1, 8)],
        (JPEG[:2], "unsupported"),
        (saved(Image.new("RGB", (1, 1), "red"), "PNG"), "ok"),
        (saved(Image.new("RGB", (1, 20_000), "red"), "PNG"), "ok"),
        (saved(Image.new("RGB", (20_000, 1), "red"), "JPEG"), "ok"),
        (saved(Image.new("I;16", (50, 50), 40_000), "PNG"), "ok"),
        (saved(Image.new("CMYK", (50, 50)), "JPEG"), "ok"),
        (saved(Image.new("RGBA", (50, 50), (1, 2, 3, 0)), "PNG"), "ok"),
        (saved(Image.new("P", (50, 50)), "GIF", save_all=True), "ok"),
        (saved(Image.new("1", (50, 50)), "TIFF", compression="group4"), "ok"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}-bytes",
)
def test_files_made_by_hand(data, status):
    if status == "ok":
        assert decode_image(data, PREPROCESS).pixels.shape == (224, 224, 3)
        return
    with pytest.raises(ImageError) as raised:
        decode_image(data, PREPROCESS)
    assert raised.value.status == status
    assert "\n" not in raised.value.message


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a small PNG with a further chunk before its pixels."""
    data = saved(Image.new("RGB", (50, 50), "red"), "PNG")
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return data[:33] + len(content).to_bytes(4, "big") + kind + content + checksum + data[33:]


def many_pages(count: int) -> bytes:
    """Return a TIFF with so many directories, each of which leads to the next and the last to itself."""
    page = saved(Image.new("L", (8, 8), 9), "TIFF")
    start = struct.unpack("<I", page[4:8])[0]
    entries = struct.unpack("<H", page[start : start + 2])[0]
    size = 2 + 12 * entries + 4
    directory = page[start : start + size - 4]
    first = len(page)
    chain = b"".join(
        directory + struct.pack("<I", first + min(number + 1, count - 1) * size)
        for number in range(count)
    )
    return page[:4] + struct.pack("<I", first) + page[8:] + chain


def many_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    data = saved(Image.effect_noise((1500, 1500), 60), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def jp2_of(width: int, height: int, tile: int) -> bytes:
    """Return a JPEG 2000 file whose header states a size and tiles of a size."""
    data = bytearray(saved(Image.new("RGB", (64, 64), "red"), "JPEG2000"))
    place = data.index(b"\xff\x51") + 4
    struct.pack_into(">IIIIIIII", data, place + 2, width, height, 0, 0, tile, tile, 0, 0)
    box = data.index(b"ihdr") + 4
    struct.pack_into(">II", data, box, height, width)
    return bytes(data)


def deflated(megabytes: int) -> bytes:
    """Return so many megabytes of zeros, compressed."""
    stream = zlib.compressobj(9)
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(megabytes)) + stream.flush()


def many_frames(count: int) -> bytes:
    frames = [Image.new("P", (50, 50), number % 250) for number in range(count)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def damaged_exif() -> bytes:
    entries = b"\x12\x01\x03\0\xff\xff\xff\x7f\0\0\0\0" * 4000
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + entries
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]


def avif_of(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("RGB", (64, 64), "red"), "AVIF"))
    struct.pack_into(">II", data, data.index(b"ispe") + 8, width, height)
    return bytes(data)


#: Hand-made files that want much time or memory, and the statuses that are right.
BOMBS = {
    "text": (lambda: with_chunk(b"zTXt", b"a\0\0" + deflated(300)), {"ok"}),
    "itext": (lambda: with_chunk(b"iTXt", b"a\0\1\0\0\0" + deflated(300)), {"ok"}),
    "profile": (lambda: with_chunk(b"iCCP", b"a\0\0" + deflated(300)), {"ok"}),
    "frames": (lambda: many_frames(3000), {"ok"}),
    "pages": (lambda: many_pages(300_000), {"ok"}),
    "scans": (lambda: many_scans(30), {"ok", "decode_error"}),
    "exif": (damaged_exif, {"ok"}),
    "jp2 size": (lambda: jp2_of(2**31 - 1, 2**31 - 1, 64), {"too_large", "decode_error"}),
    "jp2 tiles": (lambda: jp2_of(12_000, 12_000, 1), {"too_large", "decode_error"}),
    "avif size": (lambda: avif_of(60_000, 60_000), {"too_large", "decode_error"}),
}


def decode_bomb(name: str) -> dict[str, object]:
    """Decode one of them; return its status, the seconds, and the memory in megabytes."""
    data = BOMBS[name][0]()
    before = peak_megabytes()
    began = time.monotonic()
    try:
        decode_image(data, PREPROCESS)
        status = "ok"
    except ImageError as error:
        status = error.status.value
    grown = peak_megabytes() - before
    return {"status": status, "seconds": time.monotonic() - began, "megabytes": grown}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little(name):
    done = subprocess.run(
        [sys.executable, "-m", MODULE, name], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] in BOMBS[name][1], found
    assert found["seconds"] < 30
    assert found["megabytes"] < 1000


if __name__ == "__main__" and len(sys.argv) > 1:
    print(json.dumps(decode_bomb(sys.argv[1])))
elif __name__ == "__main__":
    print(json.dumps(decode_mutants()))
