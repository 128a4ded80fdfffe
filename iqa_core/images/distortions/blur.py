"""Blur: Gaussian, motion, defocus, frosted glass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqa_core.images.distortions.arrays import (
    convolve,
    gaussian_filter,
    interpolate,
    pixel_scale,
    to_uint8,
    to_unit,
)

if TYPE_CHECKING:
    from iqa_core.images.distortions.arrays import ImageArray

__all__ = ["defocus_blur", "gaussian_blur", "jitter", "motion_blur"]


def gaussian_blur(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Blur with a Gaussian of sigma 0.7 to 7 pixels."""
    sigma = interpolate(0.7, 7.0, severity) * pixel_scale(image)
    return to_uint8(gaussian_filter(to_unit(image), (sigma, sigma, 0), truncate=3.0))


def motion_blur(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Smear along a straight line of 4 to 40 pixels in a random direction."""
    length = interpolate(4.0, 40.0, severity) * pixel_scale(image)
    angle = rng.uniform(0, np.pi)
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for step in np.linspace(-length / 2, length / 2, int(4 * length) + 1):
        y, x = half + step * np.sin(angle), half + step * np.cos(angle)
        top, left = int(y), int(x)
        kernel[top, left] += (1 - y + top) * (1 - x + left)
        kernel[top, left + 1] += (1 - y + top) * (x - left)
        kernel[top + 1, left] += (y - top) * (1 - x + left)
        kernel[top + 1, left + 1] += (y - top) * (x - left)
    return convolve(image, kernel / kernel.sum())


def defocus_blur(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Blur with a disc of radius 1.3 to 13 pixels, as a lens out of focus does."""
    radius = interpolate(1.3, 13.0, severity) * pixel_scale(image)
    half = int(np.ceil(radius)) + 1
    grid = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(grid[0], grid[1]), 0.0, 1.0)
    return convolve(image, kernel / kernel.sum())


def jitter(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Take each pixel from a random place 0.7 to 9 pixels around it, as frosted glass does."""
    spread = interpolate(0.7, 9.0, severity) * pixel_scale(image)
    height, width = image.shape[:2]
    offset = np.rint(rng.normal(0, spread, (2, height, width))).astype(np.int64)
    rows = np.clip(np.arange(height)[:, None] + offset[0], 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] + offset[1], 0, width - 1)
    moved: ImageArray = image[rows, columns]
    return moved
