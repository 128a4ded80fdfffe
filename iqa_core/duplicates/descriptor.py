"""A small description of what an image shows, by which near copies are found.

The low frequencies of the image's brightness: a discrete cosine transform of 64 x 64 pixels, of which the
lowest 13 x 13 are kept without the mean. Photographs have ever less energy in higher frequencies, so each
is multiplied by its frequency, which gives all of them a say. Encoding and resizing change low frequencies
little, so the cosine between two copies is near 1; that of two different pictures is near 0.

A model's own features are not always fit for this: those of `tiny`, for one, follow an image's quality.

Sources: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010 (pHash), and
PDQ (https://github.com/facebook/ThreatExchange/tree/main/pdq), which keep the sign of such coefficients.
What differs: 8 bits of each are kept instead of one, as these tell different pictures apart much better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

__all__ = ["describe_pixels"]

_SIDE = 64
_FREQUENCIES = 13
#: Standard deviation of the brightness, 0 to 255, in these frequencies, below which nothing is described.
_LEAST_CONTRAST = 1.5

_steps = np.arange(_FREQUENCIES)[:, None]
_COSINES = np.cos(np.pi * (np.arange(_SIDE) + 0.5) * _steps / _SIDE).astype(np.float32)
_WEIGHTS = np.hypot(_steps, _steps.T).astype(np.float32)


def describe_pixels(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes | None:
    """Describe an image.

    Args:
        pixels: (H, W, 3) uint8, as the model gets them.

    Returns:
        The 168 values of the column ``descriptor``, int8, of which the largest is 127 or -127; None for an
        image without contrast in low frequencies.
    """
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    brightness = np.asarray(grey, dtype=np.float32)
    waves = (_COSINES @ brightness @ _COSINES.T).ravel()[1:]
    if 2 * np.linalg.norm(waves) < _LEAST_CONTRAST * brightness.size:  # a wave's share, by Parseval
        return None
    values = _WEIGHTS.ravel()[1:] * waves
    found: bytes = np.rint(values * (127 / np.abs(values).max())).astype(np.int8).tobytes()
    return found
