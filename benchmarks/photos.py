"""The photographs of benchmarks, in any size, clean and noisy, as files and in manifests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

__all__ = ["ENCODINGS", "crop_to", "encode", "enlarge", "files", "manifest", "photographs"]

#: Label -> Pillow's format, mode and options.
ENCODINGS = {
    "JPEG": ("JPEG", "RGB", {"quality": 92}),
    "JPEG, progressive": ("JPEG", "RGB", {"quality": 92, "progressive": True}),
    "JPEG, grey": ("JPEG", "L", {"quality": 92}),
    "JPEG, CMYK": ("JPEG", "CMYK", {"quality": 92}),
    "PNG": ("PNG", "RGB", {"compress_level": 1}),
    "WebP": ("WEBP", "RGB", {"quality": 90, "method": 0}),
}


def photographs() -> list[Image.Image]:
    """Return the photographs that need no download: those in scikit-image and scikit-learn."""
    names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")
    arrays = [getattr(data, name)() for name in names] + load_sample_images().images
    return [Image.fromarray(array).convert("RGB") for array in arrays]


def enlarge(photo: Image.Image, longer_side: int) -> Image.Image:
    """Resize so that the longer side has ``longer_side`` pixels."""
    scale = longer_side / max(photo.size)
    size = (round(photo.width * scale), round(photo.height * scale))
    return photo.resize(size, Image.Resampling.LANCZOS)


def crop_to(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cut the middle out in the aspect of ``size``, and resize that to it."""
    scale = min(photo.width / size[0], photo.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = (photo.width - width) / 2, (photo.height - height) / 2
    box = (left, top, left + width, top + height)
    return photo.resize(size, Image.Resampling.LANCZOS, box=box)


def encode(photo: Image.Image, label: str) -> bytes:
    """Write a photograph in one of ``ENCODINGS``."""
    fmt, mode, options = ENCODINGS[label]
    buffer = io.BytesIO()
    photo.convert(mode).save(buffer, fmt, **options)
    return buffer.getvalue()


def files(size: tuple[int, int], label: str = "JPEG", noise: float = 0.0) -> list[bytes]:
    """Return the photographs as files.

    Args:
        size: Width and height.
        label: One of ``ENCODINGS``.
        noise: Standard deviation of Gaussian noise, in pixel values; 0 leaves them smooth, as enlarged
            photographs are.
    """
    images = [crop_to(photo, size) for photo in photographs()]
    if noise:
        images = [_add_noise(image, noise, seed) for seed, image in enumerate(images)]
    return [encode(image, label) for image in images]


def _add_noise(image: Image.Image, deviation: float, seed: int) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, deviation, pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def manifest(folder: Path, images: list[bytes], rows: int, *, inline: bool = False) -> Path:
    """Write a manifest of so many rows, which name the files in turn or hold their bytes.

    Args:
        folder: Of manifest and files.
        images: Encoded images.
        rows: Rows of the manifest.
        inline: Whether the manifest holds the bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{rows}{'-inline' if inline else ''}.parquet"
    if inline:
        structs = [{"bytes": images[row % len(images)], "path": None} for row in range(rows)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(structs, kind)})
        pq.write_table(table, path, row_group_size=64, use_dictionary=False, compression="none")
        return path
    for number, content in enumerate(images):
        name = folder / f"{number}.jpg"
        if not name.exists():
            name.write_bytes(content)
    uris = [f"{row % len(images)}.jpg" for row in range(rows)]
    pq.write_table(pa.table({"uri": uris}), path)
    return path
