"""Images of any sizes through an image encoder, in batches that a failure halves."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    #: Images that went through the encoder together: their positions and features.
    Encoded = tuple[Sequence[int], torch.Tensor]

__all__ = ["DEFAULT_PIXEL_BUDGET", "encode_images"]

#: Pixels in one forward pass at native resolution: 16 images of one megapixel.
DEFAULT_PIXEL_BUDGET = 16 * 1024 * 1024


def encode_images(
    encode: Callable[[np.ndarray], torch.Tensor],
    images: np.ndarray | torch.Tensor | Sequence[np.ndarray],
    width: int,
    *,
    batch_size: int | None = None,
    pixel_budget: int = DEFAULT_PIXEL_BUDGET,
    turn: AbstractContextManager[Any] | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Encode images of any sizes; an image that the model fails on costs no other image.

    Images of equal size go through the tower together, up to ``batch_size`` and ``pixel_budget`` (never
    padded: the attention would see the padding). A batch that fails is halved until the image that fails
    is alone, which is also what a device without enough memory needs. The features are copied from the
    device once, after the last batch, so that the device need not wait for this process in between.

    Args:
        encode: (N, H, W, 3) uint8 -> (N, D) float32 unit features; see
            :meth:`iqa_core.clip.encoder.ImageEncoder.encode`.
        images: (N, H, W, 3) uint8, also as a tensor if ``encode`` takes one, or N arrays of (H, W, 3).
        width: The feature width D.
        batch_size: Images in one forward pass; None is limited by pixels only.
        pixel_budget: Pixels in one forward pass, at least one image.
        turn: Such as a lock: entered for all calls of ``encode``, and left before the features are awaited,
            so that of two threads one prepares or finishes its images while the other's are encoded.

    Returns:
        (N, D) float32 features, NaN where the model failed, and what happened there by position.

    Raises:
        torch.AcceleratorError: If the device itself failed. This process can't use it any more.
    """
    features = np.full((len(images), width), np.nan, dtype=np.float32)
    encoded: list[Encoded] = []
    errors: dict[int, str] = {}
    with turn or nullcontext():
        for positions in _batches(images, batch_size or len(images), pixel_budget):
            _encode_or_halve(encode, images, positions, encoded, errors)
    if encoded:
        places = np.concatenate([positions for positions, _ in encoded])
        values = torch.cat([tensor for _, tensor in encoded]).cpu().numpy()
        finite = np.isfinite(values).all(axis=1)
        features[places[finite]] = values[finite]
        wrong = "the image tower returned features that are not finite"
        errors.update(dict.fromkeys(places[~finite].tolist(), wrong))
    return features, errors


def _batches(
    images: np.ndarray | torch.Tensor | Sequence[np.ndarray], batch_size: int, pixel_budget: int
) -> Iterator[Sequence[int]]:
    """Yield the positions of images of equal size."""
    if isinstance(images, np.ndarray | torch.Tensor):
        by_size: dict[tuple[int, ...], Sequence[int]] = {
            tuple(images.shape[1:]): range(len(images))
        }
    else:
        lists: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            lists[image.shape].append(position)
        by_size = dict(lists)
    for shape, positions in by_size.items():
        step = max(1, min(batch_size, pixel_budget // max(1, shape[0] * shape[1])))
        for start in range(0, len(positions), step):
            yield positions[start : start + step]


def _batch(
    images: np.ndarray | torch.Tensor | Sequence[np.ndarray], positions: Sequence[int]
) -> Any:  # noqa: ANN401 - an array, or a tensor
    """Return images as one array or tensor, which is a view where they lie side by side."""
    if isinstance(images, np.ndarray | torch.Tensor):
        return images[positions[0] : positions[-1] + 1]
    if len(positions) == 1:
        return images[positions[0]][None]
    return np.stack([images[position] for position in positions])


def _encode_or_halve(
    encode: Callable[[np.ndarray], torch.Tensor],
    images: np.ndarray | torch.Tensor | Sequence[np.ndarray],
    positions: Sequence[int],
    encoded: list[Encoded],
    errors: dict[int, str],
) -> None:
    try:
        encoded.append((positions, encode(_batch(images, positions))))
    except torch.AcceleratorError:
        raise
    except Exception as error:  # whatever a model may raise
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        if len(positions) == 1:
            errors[positions[0]] = f"{type(error).__name__}: {error_line(error, 500)}"[:500]
            return
        half = len(positions) // 2
        _encode_or_halve(encode, images, positions[:half], encoded, errors)
        _encode_or_halve(encode, images, positions[half:], encoded, errors)
