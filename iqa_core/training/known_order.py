"""Learning from an order that is known by construction: an image, and degraded copies of it.

Self-distillation can't be better than its teacher, and keeps a bad teacher's faults: it has no
knowledge of quality of its own. Degraded copies give that without labels: of two views of any images,
the one that was degraded by several levels less is the better one. The same pairs measure how far a
teacher can be trusted, so that a wrong one does not mislead the student.

Sources: Liu, van de Weijer, Bagdanov, "RankIQA", ICCV 2017, https://arxiv.org/abs/1707.08347 (ranked
degradations as labels). What differs: it trains prompts and not a network, pairs span contents and
kinds of degradation, and the teacher's order is learned too, weighted by how often it is right.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

__all__ = ["MIN_LEVEL_GAP", "known_order_agreement", "order_loss", "reliability"]

#: Views whose levels differ by less are not compared: one kind's level 2 may be worse than another's 3.
MIN_LEVEL_GAP = 3


def _known(levels: torch.Tensor) -> torch.Tensor:
    """(M,) levels -> (M, M): whether the row's view is known to be better than the column's."""
    return levels[None, :] - levels[:, None] >= MIN_LEVEL_GAP


def order_loss(margins: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return RankNet's loss over all pairs of views whose order is known.

    See :func:`iqa_core.losses.pairwise.ranknet`.

    Args:
        margins: (M, P) logit margins of M views, with gradients.
        levels: (M,) integers: 0 for an image itself, up to 5 for a severe copy.

    Returns:
        (P,), 0 where no order is known.
    """
    better, worse = _known(levels).nonzero(as_tuple=True)
    if not len(better):
        return margins.sum(dim=0) * 0
    return -F.logsigmoid(margins[better] - margins[worse]).mean(dim=0)


@torch.no_grad()
def known_order_agreement(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return how far scores or margins agree with the known order.

    Args:
        values: (M, P), higher for better.
        levels: (M,) integers.

    Returns:
        (P,) in [-1, 1]: the share of known pairs that are right, less that of the wrong ones; 0
        where no order is known.
    """
    better, worse = _known(levels).nonzero(as_tuple=True)
    if not len(better):
        return torch.zeros(values.shape[1], dtype=torch.float64)
    return (values[better] - values[worse]).sign().double().mean(dim=0)


def reliability(agreement: torch.Tensor) -> torch.Tensor:
    """Return a teacher's weight, in [0, 1], from its agreement with the known order.

    Zero for a teacher that is no better than chance, and the square, so that a poor one hardly counts.
    """
    return agreement.clamp(min=0).square()
