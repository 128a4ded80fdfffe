"""Thousands of damaged and hostile files: no crash, no hang, bounded memory, a status for each."""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_core.images import decode_image
from iqa_core.schema import ImageError, Preprocess

ROOT = Path(__file__).parent.parent.parent
PREPROCESS = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3)
MUTANTS = 2400
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
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"counts": counts, "slowest": slowest, "megabytes": megabytes}


@pytest.mark.slow
def test_mutants_neither_crash_nor_hang_nor_fill_the_memory():
    # In a process of its own, which a crash of a decoder would end.
    done = subprocess.run(
        [sys.executable, __file__], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["counts"].values()) == MUTANTS
    assert set(found["counts"]) <= {"ok", "decode_error", "unsupported", "too_large", "empty"}
    assert found["counts"]["decode_error"] > 100
    assert found["slowest"] < 20
    assert found["megabytes"] < 1500


def png(width: int, height: int) -> bytes:
    """Return a PNG of a stated size whose data are those of one black row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1 + 3 * width)))
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


if __name__ == "__main__":
    print(json.dumps(decode_mutants()))
