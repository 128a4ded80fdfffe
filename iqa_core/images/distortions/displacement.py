"""Pixels in the wrong place: warps, torn and interlaced video, ghosts, shifted colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iqa_core.images.distortions.arrays import (
    interpolate,
    pixel_scale,
    to_uint8,
    to_unit,
)

if TYPE_CHECKING:
    from iqa_core.images.distortions.arrays import ImageArray

__all__ = ["chroma_shift", "comb", "ghost", "tear", "warp"]


def warp(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Bend the image smoothly: waves of 20 to 60 pixels that move places by 1 to 9 pixels."""
    from scipy import ndimage

    height, width = image.shape[:2]
    reach = interpolate(1.0, 9.0, severity) * pixel_scale(image)
    cell = rng.uniform(20, 60) * pixel_scale(image)
    grid = (2, max(3, round(height / cell)), max(3, round(width / cell)))
    bend = [
        np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC))
        for part in rng.standard_normal(grid, dtype=np.float32) * reach
    ]
    places = np.mgrid[:height, :width] + np.stack(bend)
    channels = [
        ndimage.map_coordinates(image[..., c], places, order=1, mode="nearest") for c in range(3)
    ]
    return np.stack(channels, axis=-1)


def tear(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shift bands of 3 to 20 rows sideways by up to 2 to 40 pixels, as a bad video tape does."""
    reach = interpolate(2.0, 40.0, severity) * pixel_scale(image)
    out, top = image.copy(), 0
    while top < len(image):
        rows = int(rng.integers(3, 21))
        shift = round(float(rng.uniform(-reach, reach)))
        out[top : top + rows] = np.roll(image[top : top + rows], shift, axis=1)
        top += rows
    return out


def comb(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shift every second pair of rows by 2 to 24 pixels: interlaced video of a moving scene."""
    shift = round(interpolate(2.0, 24.0, severity) * pixel_scale(image))
    out = image.copy()
    for start in (0, 1):
        out[start::4] = np.roll(image[start::4], shift, axis=1)
    return out


def ghost(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add a displaced copy of the image, 12 % to 50 % of it."""
    share = interpolate(0.12, 0.5, severity)
    reach = rng.uniform(6, 30) * pixel_scale(image)
    angle = rng.uniform(0, 2 * np.pi)
    offset = (round(reach * np.sin(angle)), round(reach * np.cos(angle)))
    copy = np.roll(image, offset, axis=(0, 1))
    return to_uint8(to_unit(image) * (1 - share) + to_unit(copy) * share)


def chroma_shift(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shift red and blue against each other by 1 to 14 pixels, as a bad lens or a bad print does."""
    reach = interpolate(1.0, 14.0, severity) * pixel_scale(image)
    angle = rng.uniform(0, 2 * np.pi)
    offset = (round(reach * np.sin(angle)), round(reach * np.cos(angle)))
    if offset == (0, 0):
        offset = (0, 1)
    out = image.copy()
    out[..., 0] = np.roll(image[..., 0], offset, axis=(0, 1))
    out[..., 2] = np.roll(image[..., 2], (-offset[0], -offset[1]), axis=(0, 1))
    return out
