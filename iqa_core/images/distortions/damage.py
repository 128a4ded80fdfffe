"""Damage by transmission, processing and print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from iqa_core.images.distortions.arrays import (
    gaussian_filter,
    interpolate,
    pixel_scale,
    to_uint8,
    to_unit,
)

if TYPE_CHECKING:
    from iqa_core.images.distortions.arrays import ImageArray

__all__ = ["blocks", "halftone", "holes", "median", "oversharpen"]


def blocks(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Move 2 % to 40 % of the 24-pixel blocks elsewhere, as a damaged video stream does."""
    height, width = image.shape[:2]
    size = max(8, round(24 * pixel_scale(image)))
    out = image.copy()
    share = interpolate(0.02, 0.4, severity)
    reach = 2 * size
    for top in range(0, height - size + 1, size):
        for left in range(0, width - size + 1, size):
            chance, dy, dx = rng.random(3)
            if chance < share:
                y = int(np.clip(top + (2 * dy - 1) * reach, 0, height - size))
                x = int(np.clip(left + (2 * dx - 1) * reach, 0, width - size))
                out[top : top + size, left : left + size] = image[y : y + size, x : x + size]
    return out


def holes(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Lose 1 % to 35 % of the image in flat runs of 16-pixel blocks, as lost packets do."""
    height, width = image.shape[:2]
    size = max(6, round(16 * pixel_scale(image)))
    value = (0, 128, 255)[int(rng.integers(3))]
    rows, columns = -(-height // size), -(-width // size)
    lost = np.zeros(rows * columns, dtype=bool)
    target = max(1, round(interpolate(0.01, 0.35, severity) * lost.size))
    while lost.sum() < target:
        start = int(rng.integers(lost.size))
        lost[start : start + int(rng.integers(1, max(2, columns // 2)))] = True
    mask = np.kron(lost.reshape(rows, columns), np.ones((size, size), bool))[:height, :width]
    out = image.copy()
    out[mask] = value
    return out


def oversharpen(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Sharpen until bright and dark halos appear: unsharp mask of strength 1 to 12."""
    unit = to_unit(image)
    sigma = 1.6 * pixel_scale(image)
    soft = gaussian_filter(unit, (sigma, sigma, 0), truncate=3.0)
    return to_uint8(unit + interpolate(1.0, 12.0, severity) * (unit - soft))


def median(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Paint over detail: a median filter at 1 down to 1/4 of the size, as strong denoising does."""
    height, width = image.shape[:2]
    factor = max(1.0, interpolate(1.0, 4.0, severity) * pixel_scale(image))
    small = Image.fromarray(image).resize(
        (max(8, round(width / factor)), max(8, round(height / factor))), Image.Resampling.BOX
    )
    painted = small.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MedianFilter(3))
    return np.asarray(painted.resize((width, height), Image.Resampling.BILINEAR))


def halftone(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Print with dots: an ordered dither of 4 by 4 pixels, 10 % to 90 % of it."""
    order = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    size = max(1, round(pixel_scale(image)))
    screen = np.kron((order + 0.5) / 16, np.ones((size, size)))
    height, width = image.shape[:2]
    repeat = (-(-height // len(screen)), -(-width // len(screen)))
    threshold = np.tile(screen, repeat)[:height, :width, None]
    unit, share = to_unit(image), interpolate(0.1, 0.9, severity)
    return to_uint8(unit * (1 - share) + (unit > threshold) * share)
