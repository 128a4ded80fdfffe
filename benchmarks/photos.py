"""The photographs of benchmarks, in any size, clean and noisy, and as files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

__all__ = ["ENCODINGS", "crop_to", "encode", "enlarge", "files", "photographs"]

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
