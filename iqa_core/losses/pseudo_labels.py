"""Learning from pseudo-labels: cross-entropy on the images that a teacher is most confident of.

Source: Huang, Chu, Wei, "Unsupervised Prompt Learning for Vision-Language Models" (UPL),
https://arxiv.org/abs/2204.03649. What differs: two classes, the sides of a prompt pair; one teacher;
:func:`upl` chooses from each list and not once from the whole data set.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.losses._lists import check_lists, check_number, count_at_most, masked_mean

__all__ = ["pseudo_label_loss", "pseudo_labels", "upl"]


def pseudo_labels(
    targets: torch.Tensor, mask: torch.Tensor | None = None, *, top: int = 16
) -> torch.Tensor:
    """Label the images that a teacher is most confident of: the best positive, the worst negative.

    Args:
        targets: (..., L) teacher scores, of one list or of a whole data set.
        mask: (..., L) bool, or None.
        top: How many images each side gets, at least 1; in a short list, half of them.

    Returns:
        (..., L) int64: 1, -1, or 0 for neither. Of equal targets all or none are labelled, so a
        side may get fewer than ``top``.

    Raises:
        ValueError: If ``top`` or a shape is unusable.
    """
    check_number("top", top, 1)
    _, targets, mask = check_lists(targets, targets, mask)
    each = (mask.sum(dim=-1, keepdim=True) // 2).clamp(max=int(top))
    # Ranks found by sorting, not by L x L comparisons: this also runs on whole data sets.
    best = count_at_most(-targets, mask) <= each
    worst = count_at_most(targets, mask) <= each
    return torch.where(mask, best.long() - worst.long(), 0)


def pseudo_label_loss(
    margins: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the cross-entropy of sigmoid(margins) to labels, averaged over labelled images.

    Args:
        margins: (..., L).
        labels: (..., L): above 0 is the positive prompt, below 0 the negative one, 0 is no label.
        mask: (..., L) bool, or None.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape is unusable.
    """
    margins, labels, mask = check_lists(margins, labels, mask)
    signs = labels.sign().to(margins.dtype)
    return masked_mean(F.softplus(-signs * margins), mask & (labels != 0), dims=1)


def upl(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    top: int = 16,
) -> torch.Tensor:
    """Return :func:`pseudo_label_loss` with the :func:`pseudo_labels` of each list.

    UPL chooses its images once, from the whole data set. To do that, call these two yourself.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        top: How many images of the list each side gets, at least 1.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If ``top`` or a shape is unusable.
    """
    return pseudo_label_loss(margins, pseudo_labels(targets, mask, top=top), mask)
