"""Speed and pixel difference of the two decode modes, on photographs of several sizes.

    python benchmarks/decode.py [--sizes 640 1024 2048 3000 4000] [--tower 224] [--rounds 3]

The photographs are those inside scikit-image and scikit-learn, enlarged to the size and encoded.
Both modes run in turns in one process and thread, so that their ratio holds on a busy machine,
and the best round of each counts. The pixels of a mode are compared at the tower's size.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
from collections.abc import Sequence

import numpy as np
import PIL
from PIL import Image, features
from skimage import data
from sklearn.datasets import load_sample_images

from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess

_MODES = ("exact", "fast")
_ENCODINGS = {  # label -> Pillow's format and options
    "JPEG": ("JPEG", {"quality": 92}),
    "JPEG prog.": ("JPEG", {"quality": 92, "progressive": True}),
    "PNG": ("PNG", {"compress_level": 1}),
    "WebP": ("WEBP", {"quality": 90, "method": 0}),
}


def photographs() -> list[Image.Image]:
    """Return the photographs that need no download."""
    names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")
    arrays = [getattr(data, name)() for name in names] + load_sample_images().images
    return [Image.fromarray(array).convert("RGB") for array in arrays]


def enlarge(photo: Image.Image, longer_side: int) -> Image.Image:
    """Resize so that the longer side has ``longer_side`` pixels."""
    scale = longer_side / max(photo.size)
    size = (round(photo.width * scale), round(photo.height * scale))
    return photo.resize(size, Image.Resampling.LANCZOS)


def encode(photo: Image.Image, label: str) -> bytes:
    """Write a photograph in one of ``_ENCODINGS``."""
    fmt, options = _ENCODINGS[label]
    buffer = io.BytesIO()
    photo.save(buffer, fmt, **options)
    return buffer.getvalue()


def measure(files: Sequence[bytes], tower: Preprocess, rounds: int) -> str:
    """Time both modes on the files; return the columns of one line."""
    best = dict.fromkeys(_MODES, float("inf"))
    pixels: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for mode in _MODES:
            start = time.perf_counter()
            decoded = [decode_image(file, tower, mode=mode).pixels for file in files]
            best[mode] = min(best[mode], time.perf_counter() - start)
            pixels[mode] = np.stack(decoded).astype(np.int16)
    difference = np.abs(pixels["fast"] - pixels["exact"])
    exact, fast = (len(files) / best[mode] for mode in _MODES)
    worst = difference.mean(axis=(1, 2, 3)).max()
    return (
        f"{exact:9.1f} {fast:9.1f} {fast / exact:7.2f} "
        f"{difference.mean():10.3f} {worst:12.3f} {difference.max():6d}"
    )


def main() -> None:
    """Print one line per size and encoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 1024, 2048, 3000, 4000])
    parser.add_argument("--tower", type=int, default=224, help="side of the tower's input")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    print(f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs")
    turbo = features.version("libjpeg_turbo")
    print(f"Python {platform.python_version()}, Pillow {PIL.__version__}, libjpeg-turbo {turbo}")
    side = arguments.tower
    tower = Preprocess((side, side), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    photos = photographs()
    print(f"{len(photos)} photographs, bicubic to {side} x {side}; pixel values 0 to 255\n")
    print("                    images per second              |fast - exact|")
    print("size  file             exact      fast   ratio       mean  worst photo    max")
    for size in arguments.sizes:
        enlarged = [enlarge(photo, size) for photo in photos]
        for label in _ENCODINGS:
            files = [encode(photo, label) for photo in enlarged]
            print(f"{size:4d}  {label:10s} {measure(files, tower, arguments.rounds)}", flush=True)


if __name__ == "__main__":
    main()
