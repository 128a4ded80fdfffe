"""Listwise losses: the order of a whole list at once.

Sources, and what differs:
    listmle: Xia, Liu, Wang, Zhang, Li, "Listwise Approach to Learning to Rank: Theory and
        Algorithm", ICML 2008, https://doi.org/10.1145/1390156.1390306. Divided by the length, so
        that the step does not grow with the list; tied images don't compete.
    listnet: Cao, Qin, Liu, Tsai, Li, "Learning to Rank: From Pairwise Approach to Listwise
        Approach", ICML 2007, https://doi.org/10.1145/1273496.1273513. A temperature on the targets.
    approx_ndcg, soft_spearman: Qin, Liu, Li, "A General Approximation Framework for Direct
        Optimization of Information Retrieval Measures", Information Retrieval 13, 2010,
        https://doi.org/10.1007/s10791-009-9124-x (ranks by pairwise sigmoids). NDCG's relevance is
        the target scaled to the list's range, so that any unit of targets works; Spearman's
        coefficient of these ranks is this project's use of them.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.losses._lists import (
    check_lists,
    check_number,
    masked_mean,
    pair_mask,
    pairwise_differences,
)
from iqa_core.losses.linear import one_minus_correlation

__all__ = ["approx_ndcg", "listmle", "listnet", "soft_spearman"]


def listmle(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean over images of log(exp(m_i) + sum over t_k < t_i of exp(m_k)) - m_i.

    Without ties that is the negative logarithm of the probability of the targets' order in the
    Plackett-Luce model of the margins, divided by the number of images. Tied images compete
    with all below them, and not with each other: a list in which all targets are equal costs 0.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape is unusable.
    """
    margins, targets, mask = check_lists(margins, targets, mask)
    # Sorted from the worst to the best; masked images come first, with a weight that vanishes. Not
    # -inf: its cumulative sum has no gradient.
    lowest = torch.finfo(margins.dtype).min / 4
    ascending, order = torch.where(mask, targets, -math.inf).sort(dim=-1)
    num_worse = torch.searchsorted(ascending, ascending)
    present = mask.expand(order.shape).gather(-1, order)
    ordered = torch.where(mask, margins, lowest).gather(-1, order.expand(margins.shape))
    below = F.pad(ordered.logcumsumexp(dim=-1), (1, 0), value=lowest)
    losses = torch.logaddexp(ordered, below.gather(-1, num_worse.expand(margins.shape))) - ordered
    return masked_mean(losses, present, dims=1)


def listnet(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Return the cross-entropy from softmax(targets / temperature) to softmax(margins).

    Its minimum is the entropy of the former, not 0. Equal targets ask for equal margins.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        temperature: Above 0, in units of the targets. At 1, scores in [0, 1] are nearly uniform;
            for opinion scores of 0 to 100 take about 10.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape or the temperature is unusable.
    """
    check_number("temperature", temperature, 0.0, above=True)
    margins, targets, mask = check_lists(margins, targets, mask)
    # Not -inf: 0 * -inf is NaN, and the softmax of an empty list would be NaN too.
    lowest = torch.finfo(margins.dtype).min / 4
    expected = torch.where(mask, targets.to(margins.dtype) / temperature, lowest).softmax(dim=-1)
    logs = torch.where(mask, margins, lowest).log_softmax(dim=-1)
    return -torch.where(mask, expected * logs, 0.0).sum(dim=-1)


def approx_ndcg(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    temperature: float = 1.0,
    grades: float = 4.0,
) -> torch.Tensor:
    """Return 1 - NDCG of approximate ranks.

    rank_i = 1 + sum over j of sigmoid((m_j - m_i) / temperature); relevance r_i = grades * (t_i -
    min) / (max - min) over the list; gain 2^r - 1; discount 1 / log2(1 + rank). It
    weighs the best images most.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        temperature: Above 0, in logits: the scale on which two margins count as different.
        grades: Above 0, the relevance of a list's best image; its worst has 0. 4 makes the five
            grades from bad to excellent 0 to 4.

    Returns:
        (...) below 1, and above 0 but for rounding; 0 for a list whose targets are all equal.

    Raises:
        ValueError: If a shape or a hyper-parameter is unusable.
    """
    check_number("temperature", temperature, 0.0, above=True)
    check_number("grades", grades, 0.0, above=True)
    margins, targets, mask = check_lists(margins, targets, mask)
    lowest = torch.where(mask, targets, math.inf).amin(dim=-1, keepdim=True)
    highest = torch.where(mask, targets, -math.inf).amax(dim=-1, keepdim=True)
    varied = highest > lowest
    span = torch.where(varied, highest - lowest, 1.0)
    relevance = torch.where(mask & varied, (targets - lowest) / span, 0.0).to(margins.dtype)
    gains = torch.exp2(grades * relevance) - 1
    found = (gains / torch.log2(1 + _soft_ranks(margins, mask, temperature))).sum(dim=-1)
    places = torch.arange(2, margins.shape[-1] + 2, dtype=margins.dtype, device=margins.device)
    ideal = (gains.sort(dim=-1, descending=True).values / torch.log2(places)).sum(dim=-1)
    return torch.where(varied[..., 0], 1 - found / torch.where(ideal > 0, ideal, 1.0), 0.0)


def soft_spearman(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Return 1 - Pearson's correlation of the margins' approximate ranks and the targets' ranks.

    The margins' ranks are those of :func:`approx_ndcg`; the targets' are exact, ties averaged. As
    the temperature goes to 0 this goes to 1 - SRCC.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        temperature: As for :func:`approx_ndcg`.

    Returns:
        (...) in [0, 2]; 0 for a list whose targets are all equal, else 1 if its margins are.

    Raises:
        ValueError: If a shape or the temperature is unusable.
    """
    check_number("temperature", temperature, 0.0, above=True)
    margins, targets, mask = check_lists(margins, targets, mask)
    above = -pairwise_differences(targets)
    wins = ((above > 0).to(margins.dtype) + (above == 0).to(margins.dtype) / 2) * pair_mask(mask)
    # Only differences of ranks matter, so the constant in "rank" is left out.
    return one_minus_correlation(_soft_ranks(margins, mask, temperature), wins.sum(dim=-1), mask)


def _soft_ranks(margins: torch.Tensor, mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """(..., L) -> (..., L): 1 for the highest margin of a list, up to L for the lowest."""
    above = (-pairwise_differences(margins) / temperature).sigmoid()
    return 1 + torch.where(pair_mask(mask), above, 0.0).sum(dim=-1)
