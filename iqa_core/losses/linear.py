"""The loss of linear correlation, for targets that are measurements.

Source: Li, Jiang, Jiang, "Norm-in-Norm Loss with Faster Convergence and Better Performance for Image
Quality Assessment", ACM MM 2020, https://arxiv.org/abs/2008.03889 (its p = q = 2). What differs: a list
whose targets are all equal costs 0, and lists may be masked.
"""

from __future__ import annotations

import torch

from iqa_core.losses._lists import check_lists

__all__ = ["one_minus_correlation", "plcc"]


def plcc(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return 1 - Pearson's correlation of margins and targets: for targets that are measurements.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.

    Returns:
        (...) in [0, 2]; 0 for a list whose targets are all equal, else 1 if its margins are.

    Raises:
        ValueError: If a shape is unusable.
    """
    margins, targets, mask = check_lists(margins, targets, mask)
    return one_minus_correlation(margins, targets.to(margins.dtype), mask)


def one_minus_correlation(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return 1 - Pearson's correlation over the images of each list.

    Args:
        x: (..., L), with gradients.
        y: (..., L), of the same type.
        mask: (..., L) bool.

    Returns:
        (...) in [0, 2]; 0 where all y are equal, else 1 where all x are, to rounding.
    """
    x, x_norm, _ = _centred(x, mask)
    y, y_norm, varied = _centred(y, mask)
    return torch.where(varied, 1 - (x * y).sum(dim=-1) / (x_norm * y_norm), 0.0)


def _centred(
    values: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return deviations from the mean, their norm, and whether they are more than rounding.

    Where they are not, the deviations are 0 and the norm 1: no correlation, and no gradient.
    """
    count = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    values = torch.where(mask, values, 0.0)
    deviations = torch.where(mask, values - values.sum(dim=-1, keepdim=True) / count, 0.0)
    rounding = torch.finfo(values.dtype).eps * count * values.detach().abs().amax(-1, keepdim=True)
    varied = deviations.detach().abs().amax(dim=-1, keepdim=True) > rounding
    deviations = torch.where(varied, deviations, 0.0)
    squares = deviations.square().sum(dim=-1)
    norm = torch.where(varied[..., 0], squares, 1.0).sqrt()
    return deviations, norm, varied[..., 0]
