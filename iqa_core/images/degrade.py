"""Copies of an image that are worse by construction: an order that needs no labels and no teacher.

`iqa embed --views` stores the features of such copies, and `iqa train` can learn from them: whatever
the prompts say, an image with more of the same damage is not better. The kinds are the everyday ones of
IQA datasets (KADID-10k, Lin et al., QoMEX 2019), with strengths of our own.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "LEVELS", "degrade", "degraded_views"]

#: 1 is slight, 5 is severe; 0 would be the image itself.
LEVELS = (1, 2, 3, 4, 5)

Pixels = np.ndarray


def _blur(image: Pixels, level: int, _: np.random.Generator) -> Pixels:
    radius = image.shape[0] / 224 * (0.5, 1.0, 1.8, 3.0, 5.0)[level - 1]
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _noise(image: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    sigma = (6, 12, 22, 38, 60)[level - 1]
    noisy: Pixels = np.clip(image + rng.normal(0, sigma, image.shape), 0, 255)
    return noisy.astype(np.uint8)


def _jpeg(image: Pixels, level: int, _: np.random.Generator) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=(45, 25, 14, 8, 4)[level - 1])
    with Image.open(buffer) as compressed:
        return np.asarray(compressed.convert("RGB"))


def _low_resolution(image: Pixels, level: int, _: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    factor = (1.5, 2.2, 3.2, 5.0, 8.0)[level - 1]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _dark(image: Pixels, level: int, _: np.random.Generator) -> Pixels:
    darker: Pixels = image * (0.75, 0.55, 0.38, 0.25, 0.14)[level - 1]
    return darker.astype(np.uint8)


def _low_contrast(image: Pixels, level: int, _: np.random.Generator) -> Pixels:
    share = (0.75, 0.55, 0.38, 0.25, 0.14)[level - 1]
    mean = image.mean()
    flatter: Pixels = (mean + (image - mean) * share).round()
    return flatter.astype(np.uint8)


KINDS: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "low_resolution": _low_resolution,
    "dark": _dark,
    "low_contrast": _low_contrast,
}


def degrade(image: Pixels, kind: str, level: int, seed: int = 0) -> Pixels:
    """Return a worse copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        kind: A key of :data:`KINDS`.
        level: 1 (slight) to 5 (severe).
        seed: Fixes what is random.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: If kind or level are others.
    """
    if kind not in KINDS or level not in LEVELS:
        raise ValueError(
            f"kind {kind!r} and level {level} must be one of {', '.join(KINDS)} and of {LEVELS}"
        )
    return KINDS[kind](image, level, np.random.default_rng(seed))


def degraded_views(image: Pixels, number: int, key: str) -> tuple[list[Pixels], list[int]]:
    """Return copies of random kinds and levels.

    Args:
        image: (H, W, 3) uint8 RGB.
        number: Copies.
        key: What fixes kinds and levels: equal for equal keys, on every machine.

    Returns:
        The copies and their levels.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    kinds = rng.choice(list(KINDS), number)
    levels = [int(level) for level in rng.choice(LEVELS, number)]
    seeds = rng.integers(2**31, size=number)
    views = [
        degrade(image, str(kind), level, int(seed))
        for kind, level, seed in zip(kinds, levels, seeds, strict=True)
    ]
    return views, levels
