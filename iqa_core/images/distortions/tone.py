"""Exposure, contrast and colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iqa_core.images.distortions.arrays import (
    LUMA,
    gaussian_filter,
    interpolate,
    luma,
    to_uint8,
    to_unit,
)

if TYPE_CHECKING:
    from iqa_core.images.distortions.arrays import ImageArray

__all__ = [
    "colour_cast",
    "dark",
    "desaturation",
    "haze",
    "low_contrast",
    "overexposed",
    "posterise",
    "vignette",
]


def dark(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Underexpose by 0.5 to 4.5 stops (in linear light)."""
    linear = to_unit(image) ** 2.2 * 2.0 ** -(0.5 + 4.0 * severity)
    return to_uint8(linear ** (1 / 2.2))


def overexposed(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Overexpose by 0.4 to 3.2 stops (in linear light), highlights clipped."""
    linear = to_unit(image) ** 2.2 * 2.0 ** (0.4 + 2.8 * severity)
    return to_uint8(np.minimum(linear, 1.0) ** (1 / 2.2))


def low_contrast(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Pull all values towards the mean grey: 80 % down to 10 % of the contrast is left."""
    unit = to_unit(image)
    centre = float(luma(unit).mean())
    return to_uint8(centre + (unit - centre) * interpolate(0.8, 0.1, severity))


def haze(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Veil with bright fog that is denser at the top and uneven (10 % to 85 % of it)."""
    height, width = image.shape[:2]
    clouds = gaussian_filter(rng.standard_normal((12, 12)), 1.5)
    clouds = (clouds - clouds.min()) / (np.ptp(clouds) + 1e-6)
    field = np.asarray(
        Image.fromarray(clouds.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    )
    depth = 0.6 + 0.25 * np.linspace(1, 0, height, dtype=np.float32)[:, None] + 0.15 * field
    veil = np.clip(interpolate(0.1, 0.95, severity) * depth, 0.0, 0.95)[..., None]
    light = np.float32(rng.uniform(0.8, 0.95))
    return to_uint8(to_unit(image) * (1 - veil) + light * veil)


def colour_cast(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Tint the whole image with one random strong hue, by 12 % to 70 %."""
    unit = to_unit(image)
    hue = rng.uniform(0, 2 * np.pi)
    tint = 0.5 + 0.5 * np.cos(hue + np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    tinted = luma(unit) * (tint / max(float(tint @ LUMA), 0.35)).astype(np.float32)
    share = interpolate(0.12, 0.7, severity)
    return to_uint8(unit * (1 - share) + tinted * share)


def desaturation(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Take 20 % to 100 % of the colour away."""
    unit = to_unit(image)
    share = 0.2 + 0.8 * severity
    return to_uint8(unit * (1 - share) + luma(unit) * share)


def posterise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Leave 16 down to 2 values for each channel."""
    steps = interpolate(16.0, 2.0, severity) - 1.0
    return to_uint8(np.rint(to_unit(image) * steps) / steps)


def vignette(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Darken towards the borders: 15 % to 95 % of the light is lost in the corners."""
    height, width = image.shape[:2]
    centre = rng.uniform(0.35, 0.65, 2)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] - centre[0]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :] - centre[1]
    loss = np.clip(2.2 * (x**2 + y**2), 0, 1) * interpolate(0.15, 0.95, severity)
    return to_uint8(to_unit(image) * (1 - loss[..., None]))
