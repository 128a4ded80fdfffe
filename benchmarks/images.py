"""Photographs of given sizes as JPEG files and manifests, for benchmarks that read images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

__all__ = ["jpegs", "manifest", "photographs"]


def photographs() -> list[Image.Image]:
    """Return the photographs that need no download."""
    names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")
    arrays = [getattr(data, name)() for name in names] + load_sample_images().images
    return [Image.fromarray(array).convert("RGB") for array in arrays]


def jpegs(width: int, height: int, *, quality: int = 92, noise: float = 0.0) -> list[bytes]:
    """Return the photographs as JPEG files of one size, cropped to its aspect ratio.

    Args:
        width: In pixels.
        height: In pixels.
        quality: Of the encoder.
        noise: Standard deviation of noise in grey levels: files with noise are larger.
    """
    files = []
    for number, photo in enumerate(photographs()):
        scale = max(width / photo.width, height / photo.height)
        size = (max(width, round(photo.width * scale)), max(height, round(photo.height * scale)))
        image = photo.resize(size, Image.Resampling.LANCZOS).crop((0, 0, width, height))
        if noise:
            grain = np.random.default_rng(number).normal(0, noise, (height, width, 1))
            image = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        files.append(buffer.getvalue())
    return files


def manifest(folder: Path, files: list[bytes], rows: int, *, inline: bool = False) -> Path:
    """Write a manifest of so many rows, which name the files in turn or hold their bytes.

    Args:
        folder: Of manifest and files.
        files: Encoded images.
        rows: Rows of the manifest.
        inline: Whether the manifest holds the bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{rows}{'-inline' if inline else ''}.parquet"
    if inline:
        images = [{"bytes": files[row % len(files)], "path": None} for row in range(rows)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind)})
        pq.write_table(table, path, row_group_size=64, use_dictionary=False, compression="none")
        return path
    for number, content in enumerate(files):
        name = folder / f"{number}.jpg"
        if not name.exists():
            name.write_bytes(content)
    uris = [f"{row % len(files)}.jpg" for row in range(rows)]
    pq.write_table(pa.table({"uri": uris}), path)
    return path
