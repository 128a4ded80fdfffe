"""The number of images in one forward pass that a device computes fastest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fastest_batch"]

_FIRST = 32
_MOST = 1024
#: A larger batch must be faster by this factor, as it needs more memory.
_GAIN = 1.05


def fastest_batch(
    encode: Callable[[np.ndarray], torch.Tensor],
    size: tuple[int, int],
    *,
    most: int = _MOST,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Double a batch until images per second stop rising, or memory is full.

    Args:
        encode: (N, H, W, 3) uint8 -> (N, D) features.
        size: Height and width of the images.
        most: Largest batch.
        clock: Seconds from an arbitrary start.

    Returns:
        The number of images of the last batch that was faster than its half by 5 %.
    """
    best, best_rate = _FIRST, 0.0
    batch = _FIRST
    while batch <= most:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
        try:
            encode(pixels).cpu()  # allocations and the choice of kernels don't count
            began = clock()
            encode(pixels).cpu()
            rate = batch / max(clock() - began, 1e-9)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if rate < _GAIN * best_rate:
            break
        best, best_rate = batch, rate
        batch *= 2
    return best
