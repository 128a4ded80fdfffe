"""Noise: colour, film grain, photons, salt and pepper, speckle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqa_core.images.distortions.arrays import (
    gaussian_filter,
    interpolate,
    pixel_scale,
    to_uint8,
    to_unit,
)

if TYPE_CHECKING:
    from iqa_core.images.distortions.arrays import ImageArray

__all__ = ["gaussian_noise", "grain", "impulse_noise", "shot_noise", "speckle"]


def gaussian_noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add colour noise of standard deviation 0.03 to 0.35."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return to_uint8(to_unit(image) + interpolate(0.03, 0.35, severity) * noise)


def grain(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add grey, slightly coarse noise of standard deviation 0.03 to 0.3, as film grain is."""
    noise = rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    soft = gaussian_filter(noise, (0.6, 0.6, 0))
    soft /= soft.std() + 1e-6
    return to_uint8(to_unit(image) + interpolate(0.03, 0.3, severity) * soft)


def shot_noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Count photons: 500 down to 4 of them make white (Poisson noise)."""
    photons = interpolate(500.0, 4.0, severity)
    return to_uint8(rng.poisson(to_unit(image) * photons) / photons)


def impulse_noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Replace 0.5 % to 30 % of the pixels by black or white (salt and pepper)."""
    chance = rng.random(image.shape[:2], dtype=np.float32)
    share = interpolate(0.005, 0.3, severity)
    out = image.copy()
    out[chance < share] = 0
    out[chance < share / 2] = 255
    return out


def speckle(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Multiply by coarse noise of standard deviation 0.06 to 0.7 and 1 to 4 pixels."""
    height, width = image.shape[:2]
    noise = rng.standard_normal((height, width), dtype=np.float32)
    noise = gaussian_filter(noise, rng.uniform(0.4, 1.8) * pixel_scale(image))
    noise *= interpolate(0.06, 0.7, severity) / (noise.std() + 1e-6)
    return to_uint8(to_unit(image) * (1 + noise[..., None]))
