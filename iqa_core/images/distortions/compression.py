"""Codecs and lost resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iqa_core.images.distortions.arrays import (
    encode_and_decode,
    interpolate,
    pixel_scale,
    resize,
)

if TYPE_CHECKING:
    from iqa_core.images.distortions.arrays import ImageArray

__all__ = ["aliasing", "jpeg", "jpeg2000", "low_resolution", "pixelate", "webp"]


def jpeg(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Encode as JPEG at quality 40 down to 2."""
    return encode_and_decode(image, "JPEG", quality=round(interpolate(40.0, 2.0, severity)))


def webp(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Encode as WebP at quality 30 down to 0, after halving the size at the strong end."""
    height, width = image.shape[:2]
    factor = 1.0 - 0.6 * max(0.0, severity - 0.4)
    small = resize(image, round(height * factor), round(width * factor), Image.Resampling.BICUBIC)
    coded = encode_and_decode(small, "WEBP", quality=round(30 * (1 - severity)), method=2)
    return resize(coded, height, width, Image.Resampling.BICUBIC)


def jpeg2000(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Encode as JPEG 2000 at 30:1 to 500:1."""
    return encode_and_decode(
        image,
        "JPEG2000",
        quality_mode="rates",
        quality_layers=[interpolate(30.0, 500.0, severity)],
        irreversible=True,
    )


def low_resolution(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shrink by 1.7 to 14 and enlarge again (bilinear or bicubic, at random)."""
    height, width = image.shape[:2]
    factor = interpolate(1.7, 14.0, severity) * pixel_scale(image)
    how = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)[int(rng.integers(2))]
    small = resize(
        image, max(2, round(height / factor)), max(2, round(width / factor)), Image.Resampling.BOX
    )
    return resize(small, height, width, how)


def pixelate(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Replace blocks of 2 to 20 pixels by their mean colour."""
    height, width = image.shape[:2]
    factor = interpolate(2.0, 20.0, severity) * pixel_scale(image)
    small = resize(
        image, max(2, round(height / factor)), max(2, round(width / factor)), Image.Resampling.BOX
    )
    return resize(small, height, width, Image.Resampling.NEAREST)


def aliasing(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Keep one pixel in 1.6 to 9 without filtering first: jagged edges and moire patterns."""
    height, width = image.shape[:2]
    factor = interpolate(1.6, 9.0, severity) * pixel_scale(image)
    small = resize(
        image,
        max(2, round(height / factor)),
        max(2, round(width / factor)),
        Image.Resampling.NEAREST,
    )
    return resize(small, height, width, Image.Resampling.BILINEAR)
