"""Learning from degraded copies, whose order of quality needs neither labels nor a teacher.

Self-distillation can't be better than its teacher, and keeps a bad teacher's faults: it has no
knowledge of quality of its own. Degraded copies bring some: of two copies, the one that was degraded by
several levels less is the better one. For copies of one image that holds; for copies of different images
only where both images were clean before (with damaged ones, a quarter to a third of such comparisons are
false). The same comparisons measure how far a teacher can be trusted, so that a wrong one does not mislead
the student.

Sources: Liu, van de Weijer, Bagdanov, "RankIQA", ICCV 2017, https://arxiv.org/abs/1707.08347 (ranked
degradations as labels). What differs: it trains prompts and not a network, clean images' pairs span
contents and kinds of degradation, and the teacher's order is learned too, weighted by how often it is
right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MIN_LEVEL_GAP",
    "known_differences",
    "known_order_agreement",
    "order_loss",
    "reliability",
]

#: Views whose levels differ by less are not compared: one kind's level 2 may be worse than another's 3.
MIN_LEVEL_GAP = 3


def known_differences(
    values: torch.Tensor, levels: torch.Tensor, images: torch.Tensor | None
) -> Iterator[torch.Tensor]:
    """Yield better less worse of all known pairs, (..., P), in blocks of one level of the better."""
    if images is not None:
        known = levels[None, :] - levels[:, None] >= MIN_LEVEL_GAP
        better, worse = (known & (images[None, :] == images[:, None])).nonzero(as_tuple=True)
        if len(better):
            yield values[better] - values[worse]
        return
    for level in levels.unique().tolist():
        better, worse = values[levels == level], values[levels >= level + MIN_LEVEL_GAP]
        if len(worse):
            yield better[:, None] - worse[None, :]


def order_loss(
    margins: torch.Tensor, levels: torch.Tensor, images: torch.Tensor | None = None
) -> torch.Tensor:
    """Return RankNet's loss over all pairs of views whose order is known.

    See :func:`iqa_core.losses.pairwise.ranknet`.

    Args:
        margins: (M, P) logit margins of M views, with gradients.
        levels: (M,) integers: 0 for an image itself, up to 5 for a severe copy.
        images: (M,) numbers of the images that were degraded, to compare views of one image only; None
            compares all.

    Returns:
        (P,), 0 where no order is known.
    """
    total, count = margins.sum(dim=0) * 0, 0
    for difference in known_differences(margins, levels, images):
        total = total - F.logsigmoid(difference).flatten(0, -2).sum(dim=0)
        count += difference.shape[:-1].numel()
    return total / max(1, count)


@torch.no_grad()
def known_order_agreement(
    values: torch.Tensor, levels: torch.Tensor, images: torch.Tensor | None = None
) -> torch.Tensor:
    """Return how far scores or margins agree with the known order.

    Args:
        values: (M, P), higher for better.
        levels: (M,) integers.
        images: As for :func:`order_loss`.

    Returns:
        (P,) in [-1, 1]: the share of known pairs that are right, less that of the wrong ones; 0
        where no order is known.
    """
    total, count = torch.zeros(values.shape[1], dtype=torch.float64), 0
    for difference in known_differences(values, levels, images):
        total += difference.sign().flatten(0, -2).sum(dim=0, dtype=torch.float64)
        count += difference.shape[:-1].numel()
    return total / max(1, count)


def reliability(agreement: torch.Tensor) -> torch.Tensor:
    """Return a teacher's weight, in [0, 1], from its agreement with the known order.

    Zero for a teacher that is no better than chance, and the square, so that a poor one hardly counts.
    """
    return agreement.clamp(min=0).square()
