"""Images of any sizes through an image encoder, in batches that a failure halves."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DEFAULT_PIXEL_BUDGET", "encode_images"]

#: Pixels in one forward pass at native resolution: 16 images of one megapixel.
DEFAULT_PIXEL_BUDGET = 16 * 1024 * 1024


def encode_images(
    encode: Callable[[np.ndarray], torch.Tensor],
    images: Sequence[np.ndarray],
    width: int,
    *,
    pixel_budget: int = DEFAULT_PIXEL_BUDGET,
) -> tuple[np.ndarray, dict[int, str]]:
    """Encode images of any sizes; an image that the model fails on costs no other image.

    Images of equal size go through the tower together, up to ``pixel_budget`` (never padded: the
    attention would see the padding). A batch that fails is halved until the image that fails is alone,
    which is also what a device without enough memory needs.

    Args:
        encode: (N, H, W, 3) uint8 -> (N, D) float32 unit features; see
            :meth:`iqa_core.clip.encoder.ImageEncoder.encode`.
        images: N arrays of (H, W, 3) uint8.
        width: The feature width D.
        pixel_budget: Pixels in one forward pass, at least one image.

    Returns:
        (N, D) float32 features, NaN where the model failed, and what happened there by position.
    """
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_size[image.shape].append(position)
    features = np.full((len(images), width), np.nan, dtype=np.float32)
    errors: dict[int, str] = {}
    for shape, positions in by_size.items():
        step = max(1, pixel_budget // (shape[0] * shape[1]))
        for start in range(0, len(positions), step):
            _encode_or_halve(encode, images, positions[start : start + step], features, errors)
    return features, errors


def _encode_or_halve(
    encode: Callable[[np.ndarray], torch.Tensor],
    images: Sequence[np.ndarray],
    positions: Sequence[int],
    features: np.ndarray,
    errors: dict[int, str],
) -> None:
    try:
        encoded = encode(np.stack([images[position] for position in positions])).cpu().numpy()
    except Exception as error:  # whatever a model may raise
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        if len(positions) == 1:
            errors[positions[0]] = f"{type(error).__name__}: {error_line(error, 500)}"[:500]
            return
        half = len(positions) // 2
        _encode_or_halve(encode, images, positions[:half], features, errors)
        _encode_or_halve(encode, images, positions[half:], features, errors)
        return
    for position, feature in zip(positions, encoded, strict=True):
        if np.isfinite(feature).all():
            features[position] = feature
        else:
            errors[position] = "the image tower returned features that are not finite"
