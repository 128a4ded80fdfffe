"""Layers over an image that is too large for the memory, one strip of rows after another.

A strip is computed with as many more rows as its convolutions see, which are cut off the result: exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_strips"]


def in_strips(
    layers: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    factor: int,
    halo: int,
    rows: int,
) -> torch.Tensor:
    """Return ``layers(x)``, computed in strips.

    Args:
        layers: (N, C, H, W) -> (N, D, H // factor, W // factor), convolutions and pools; it must pad
            with zeros only.
        x: The input.
        factor: How much smaller the sides of the output are.
        halo: Rows of the output beside a cut that the cut reaches.
        rows: Rows of the output in a strip at most, at least 1.

    Returns:
        The output, channels_last.
    """
    height = x.shape[2] // factor
    if rows >= height:
        return layers(x)
    rows = -(-height // -(-height // rows))  # strips of equal height
    whole: torch.Tensor | None = None
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        first, last = max(0, start - halo), min(stop + halo, height)
        # The last strip takes what the factor leaves over, as the whole image does.
        part = x[:, :, first * factor : None if last == height else last * factor]
        strip = layers(part)[:, :, start - first : stop - first]
        if whole is None:
            n, channels, _, width = strip.shape
            whole = strip.new_empty(n, height, width, channels).permute(0, 3, 1, 2)
        whole[:, :, start:stop] = strip
    assert whole is not None  # noqa: S101 - height is more than rows, which is positive
    return whole
