"""What all losses share: checks of shapes and numbers, masks, differences, means over a list."""

from __future__ import annotations

import math

import torch

from iqa_core.errors import InputError

__all__ = [
    "check_lists",
    "check_number",
    "count_at_most",
    "masked_mean",
    "pair_mask",
    "pairwise_differences",
]


def check_number(name: str, value: float, limit: float, *, above: bool = False) -> None:
    """Check a hyper-parameter.

    Args:
        name: Its name.
        value: Its value.
        limit: The lowest allowed value.
        above: Whether the limit itself is not allowed.

    Raises:
        InputError: If the value is not finite or below the limit.
    """
    if not (math.isfinite(value) and (value > limit if above else value >= limit)):
        bound = "above" if above else "at least"
        raise InputError(f"{name} ({value}) must be a finite number {bound} {limit:g}")


def check_lists(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Check what a loss is called with; return all three, with zeros where masked.

    Targets and mask keep leading dimensions of size 1: what is the same for many prompt pairs is
    computed once.

    Args:
        margins: (..., L).
        targets: (..., L), or with leading dimensions that broadcast to those of the margins.
        mask: As the targets, bool; None is all True.

    Returns:
        Margins (..., L) in at least float32, targets in floating point, and the mask.

    Raises:
        ValueError: If a shape or type is unusable.
    """
    shape = margins.shape
    if not shape or not shape[-1]:
        raise ValueError(
            f"margins have shape {tuple(shape)}, but must be (..., L): lists of at least 1 image"
        )
    if mask is None:
        mask = torch.ones(shape[-1], dtype=torch.bool, device=margins.device)
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is of {mask.dtype}, but must be of torch.bool: write mask > 0")
    for name, tensor in (("targets", targets), ("mask", mask)):
        if not _broadcasts(tensor.shape, shape):
            raise ValueError(
                f"{name} have shape {tuple(tensor.shape)}, but the margins {tuple(shape)}: give "
                "one for each image, with leading dimensions that broadcast to those of the margins"
            )
    if margins.dtype in (torch.float16, torch.bfloat16) or not margins.is_floating_point():
        margins = margins.float()
    if not targets.is_floating_point():
        targets = targets.to(margins.dtype)
    # where, not multiplication: NaN * 0 is NaN.
    return torch.where(mask, margins, 0.0), torch.where(mask, targets, 0.0), mask


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of one shape expands to another with lists of the same length."""
    return bool(
        0 < len(shape) <= len(to)
        and shape[-1] == to[-1]
        and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))
    )


def pair_mask(mask: torch.Tensor) -> torch.Tensor:
    """(..., L) -> (..., L, L): true for pairs of two different images, both of them in the list."""
    different = ~torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    return mask.unsqueeze(-1) & mask.unsqueeze(-2) & different


def pairwise_differences(values: torch.Tensor) -> torch.Tensor:
    """(..., L) -> (..., L, L): v_i - v_j at (i, j)."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)


def count_at_most(targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(..., L) -> (..., L): for each image, how many images of its list have at most its target."""
    present = torch.where(mask, targets, math.inf)
    ascending = present.sort(dim=-1).values
    return torch.searchsorted(ascending, present.contiguous(), right=True)


def masked_mean(values: torch.Tensor, chosen: torch.Tensor, *, dims: int) -> torch.Tensor:
    """Return the mean of the chosen values over the last dimensions; 0 where none is chosen.

    Args:
        values: (..., L), or (..., L, L) for pairs.
        chosen: bool, broadcasts to the values.
        dims: How many of the last dimensions to average over.
    """
    last = tuple(range(-dims, 0))
    total = torch.where(chosen, values, 0.0).sum(dim=last)
    return total / chosen.sum(dim=last).clamp(min=1)
