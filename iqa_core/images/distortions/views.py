"""The six everyday kinds in five fixed steps, of which the copies of ``iqa embed --views`` are.

They are older than the kinds of continuous severity and differ from those of the same name; caches of
features hold them, so they stay as they are.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from iqa_core.images.distortions.arrays import ImageArray, encode_and_decode

__all__ = ["blur", "dark", "jpeg", "low_contrast", "low_resolution", "noise"]


def _step(severity: float) -> int:
    """Return the step, 0 to 4, of a severity of 0 to 1."""
    return round(4 * severity)


def blur(image: ImageArray, severity: float, _: np.random.Generator) -> ImageArray:
    """Blur with a Gaussian of radius 0.5 to 5 pixels, for a height of 224."""
    radius = image.shape[0] / 224 * (0.5, 1.0, 1.8, 3.0, 5.0)[_step(severity)]
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add colour noise of standard deviation 6 to 60, of 255."""
    sigma = (6, 12, 22, 38, 60)[_step(severity)]
    noisy: ImageArray = np.clip(image + rng.normal(0, sigma, image.shape), 0, 255)
    return noisy.astype(np.uint8)


def jpeg(image: ImageArray, severity: float, _: np.random.Generator) -> ImageArray:
    """Encode as JPEG at quality 45 down to 4."""
    return encode_and_decode(image, "JPEG", quality=(45, 25, 14, 8, 4)[_step(severity)])


def low_resolution(image: ImageArray, severity: float, _: np.random.Generator) -> ImageArray:
    """Shrink by 1.5 to 8 and enlarge again, both bicubic."""
    height, width = image.shape[:2]
    factor = (1.5, 2.2, 3.2, 5.0, 8.0)[_step(severity)]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def dark(image: ImageArray, severity: float, _: np.random.Generator) -> ImageArray:
    """Multiply all values by 0.75 down to 0.14."""
    darker = image * (0.75, 0.55, 0.38, 0.25, 0.14)[_step(severity)]
    return darker.astype(np.uint8)


def low_contrast(image: ImageArray, severity: float, _: np.random.Generator) -> ImageArray:
    """Leave 75 % down to 14 % of the contrast around the mean."""
    share = (0.75, 0.55, 0.38, 0.25, 0.14)[_step(severity)]
    mean = image.mean()
    flatter = np.asarray((mean + (image - mean) * share).round())
    return flatter.astype(np.uint8)
