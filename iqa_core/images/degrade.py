"""Degraded copies of images, and the one table of distortions.

The kinds of continuous severity follow the distortion lists of TID2013 (Ponomarenko et al., Signal
Processing: Image Communication 2015, https://www.ponomarenko.info/tid2013.htm) and KADID-10k (Lin et
al., QoMEX 2019, http://database.mmsp-kn.de/kadid-10k-database.html). They differ from both: strengths
are our own, continuous rather than in five steps, and spatial sizes (blur radius, block size) follow
the shorter side of the image, so that a level has the same visual effect at every image size.

The six kinds of ``iqa embed --views`` give an order of quality without labels or a teacher: an image with
more of the same damage is not better.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from iqa_core.images.distortions import (
    blur,
    compression,
    damage,
    displacement,
    noise,
    tone,
    views,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqa_core.images.distortions.arrays import ImageArray

__all__ = [
    "DISTORTIONS",
    "KINDS",
    "LEVELS",
    "Distortion",
    "apply_level",
    "degrade",
    "degraded_views",
    "distort",
]

#: 1 is slight, 5 is severe; 0 is the image itself.
LEVELS = (1, 2, 3, 4, 5)

_VIEW = "view_"


@dataclass(frozen=True)
class Distortion:
    """A kind of distortion.

    Attributes:
        function: Takes (H, W, 3) uint8 RGB, a severity in [0, 1] (0 is nearly invisible, 1 is severe)
            and a generator; returns a new array of the same kind.
        use: ``benchmark``: in the benchmark and in training ``tiny``; ``held_out``: in the benchmark
            only; ``training``: in training only; ``view``: of ``iqa embed --views``, whose severity
            has five steps.
    """

    function: Callable[[ImageArray, float, np.random.Generator], ImageArray]
    use: Literal["benchmark", "held_out", "training", "view"] = "benchmark"


#: All kinds by name; the order is part of the benchmark's and of training's definition.
DISTORTIONS: dict[str, Distortion] = {
    "gaussian_blur": Distortion(blur.gaussian_blur),
    "motion_blur": Distortion(blur.motion_blur),
    "defocus_blur": Distortion(blur.defocus_blur),
    "jitter": Distortion(blur.jitter, "held_out"),
    "gaussian_noise": Distortion(noise.gaussian_noise),
    "grain": Distortion(noise.grain),
    "shot_noise": Distortion(noise.shot_noise),
    "impulse_noise": Distortion(noise.impulse_noise),
    "jpeg": Distortion(compression.jpeg),
    "webp": Distortion(compression.webp),
    "jpeg2000": Distortion(compression.jpeg2000),
    "low_resolution": Distortion(compression.low_resolution),
    "pixelate": Distortion(compression.pixelate),
    "aliasing": Distortion(compression.aliasing),
    "dark": Distortion(tone.dark),
    "overexposed": Distortion(tone.overexposed),
    "low_contrast": Distortion(tone.low_contrast),
    "haze": Distortion(tone.haze, "held_out"),
    "colour_cast": Distortion(tone.colour_cast),
    "desaturation": Distortion(tone.desaturation),
    "posterise": Distortion(tone.posterise),
    "blocks": Distortion(damage.blocks),
    "holes": Distortion(damage.holes),
    "oversharpen": Distortion(damage.oversharpen),
    "warp": Distortion(displacement.warp, "training"),
    "tear": Distortion(displacement.tear, "training"),
    "comb": Distortion(displacement.comb, "training"),
    "ghost": Distortion(displacement.ghost, "training"),
    "median": Distortion(damage.median, "training"),
    "halftone": Distortion(damage.halftone, "training"),
    "speckle": Distortion(noise.speckle, "training"),
    "chroma_shift": Distortion(displacement.chroma_shift, "training"),
    "vignette": Distortion(tone.vignette, "training"),
    "view_blur": Distortion(views.blur, "view"),
    "view_noise": Distortion(views.noise, "view"),
    "view_jpeg": Distortion(views.jpeg, "view"),
    "view_low_resolution": Distortion(views.low_resolution, "view"),
    "view_dark": Distortion(views.dark, "view"),
    "view_low_contrast": Distortion(views.low_contrast, "view"),
}

#: The kinds of ``iqa embed --views``, as :func:`degrade` takes them.
KINDS = tuple(name.removeprefix(_VIEW) for name, kind in DISTORTIONS.items() if kind.use == "view")


def distort(image: ImageArray, kind: str, severity: float, seed: int) -> ImageArray:
    """Distort an image at a continuous severity.

    Args:
        image: (H, W, 3) uint8 RGB, at least 16 pixels on each side; not changed.
        kind: A key of :data:`DISTORTIONS`.
        severity: Strength in [0, 1].
        seed: Of directions, places and noise. The same seed with increasing severities gives a series.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: If the array is not uint8 RGB, the kind is unknown, or the severity is out of
            range.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image has shape {image.shape} and type {image.dtype}: give uint8 RGB (H, W, 3)"
        )
    if kind not in DISTORTIONS:
        names = ", ".join(DISTORTIONS)
        raise ValueError(f"distortion kind {kind!r} is unknown: use one of {names}")
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity {severity} is out of range: use 0 to 1")
    return DISTORTIONS[kind].function(image, severity, np.random.default_rng(seed))


def apply_level(image: ImageArray, kind: str, level: float, seed: int = 0) -> ImageArray:
    """Distort an image at a level: 0 is the clean image, 1 (slight) to 5 (severe), or between.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        kind: A key of :data:`DISTORTIONS`.
        level: Strength in [0, 5]; below 1 the severity is that of level 1, and only 0 is clean.
        seed: Of directions, places and noise.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: As :func:`distort`, or if the level is out of range.
    """
    if not 0.0 <= level <= LEVELS[-1]:
        raise ValueError(f"level {level} is out of range: use 0 (clean) to {LEVELS[-1]}")
    if level == 0:
        return image.copy()
    return distort(image, kind, max(0.0, (level - 1) / (LEVELS[-1] - 1)), seed)


def degrade(image: ImageArray, kind: str, level: int, seed: int = 0) -> ImageArray:
    """Return a degraded copy of an image, of a kind of ``iqa embed --views``.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        kind: One of :data:`KINDS`.
        level: 1 (slight) to 5 (severe).
        seed: Random seed.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: If the kind or the level is unknown.
    """
    if kind not in KINDS or level not in LEVELS:
        raise ValueError(
            f"kind {kind!r} and level {level} must be one of {', '.join(KINDS)} and of {LEVELS}"
        )
    return apply_level(image, _VIEW + kind, level, seed)


def degraded_views(image: ImageArray, number: int, key: str) -> tuple[list[ImageArray], list[int]]:
    """Return copies of random kinds and levels.

    Args:
        image: (H, W, 3) uint8 RGB.
        number: Number of copies.
        key: Determines kinds and levels: equal for equal keys, on every machine.

    Returns:
        The copies and their levels.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    kinds = rng.choice(list(KINDS), number)
    levels = [int(level) for level in rng.choice(LEVELS, number)]
    seeds = rng.integers(2**31, size=number)
    copies = [
        degrade(image, str(kind), level, int(seed))
        for kind, level, seed in zip(kinds, levels, seeds, strict=True)
    ]
    return copies, levels
