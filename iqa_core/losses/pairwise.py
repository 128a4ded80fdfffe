"""Pairwise losses: each pair of images by the order, or the difference, of its targets.

Sources, and what differs:
    ranknet: Burges et al., "Learning to Rank using Gradient Descent", ICML 2005,
        https://doi.org/10.1145/1102351.1102363. Tied pairs are left out unless labels are soft.
    margin_ranking: Herbrich, Graepel, Obermayer, "Large Margin Rank Boundaries for Ordinal
        Regression", 2000; for IQA: Liu, van de Weijer, Bagdanov, "RankIQA", ICCV 2017,
        https://arxiv.org/abs/1707.08347.
    fidelity: Tsai, Liu, Qin, Chen, Ma, "FRank: A Ranking Method with Fidelity Loss", SIGIR 2007,
        https://doi.org/10.1145/1277741.1277808. As for ranknet.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.errors import InputError
from iqa_core.losses._lists import (
    check_lists,
    check_number,
    masked_mean,
    pair_mask,
    pairwise_differences,
)

__all__ = ["confident_pairs", "fidelity", "margin_ranking", "ranknet"]


def confident_pairs(
    targets: torch.Tensor, mask: torch.Tensor | None = None, *, quantile: float = 0.0
) -> torch.Tensor:
    """Choose the pairs whose targets differ most: the order that a teacher is most confident of.

    Args:
        targets: (..., L).
        mask: (..., L) bool, or None.
        quantile: In [0, 1): of a list's n pairs, the floor(quantile * n) with the smallest
            difference are left out, except those that differ as much as the smallest one kept.

    Returns:
        (..., L, L) bool, symmetric. Never true for a tied pair, a masked image, or the diagonal.

    Raises:
        ValueError: If the quantile or a shape is unusable.
    """
    _, targets, mask = check_lists(targets, targets, mask)
    return _confident(targets, pair_mask(mask), quantile)


def ranknet(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    pairs: torch.Tensor | None = None,
    *,
    temperature: float = 0.0,
    confident: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of P(i above j) = sigmoid(m_i - m_j), averaged over pairs.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        pairs: (..., L, L) bool: i and j may be compared where (i, j) or (j, i) is true; None is
            all.
        temperature: 0 labels a pair by its order alone and leaves tied pairs out. Above 0, in units
            of the targets, the label is sigmoid((t_i - t_j) / temperature), 0.5 for tied pairs.
        confident: Quantile of :func:`confident_pairs`, taken over ``pairs``; 0 compares all.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape or a hyper-parameter is unusable.
    """
    margins, targets, chosen = _compared(margins, targets, mask, pairs, temperature, confident)
    labels = _labels(targets, temperature).to(margins.dtype)
    differences = pairwise_differences(margins)
    above, below = F.logsigmoid(differences), F.logsigmoid(-differences)
    return masked_mean(-labels * above - (1 - labels) * below, chosen, dims=2)


def margin_ranking(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    pairs: torch.Tensor | None = None,
    *,
    margin: float = 1.0,
    confident: float = 0.0,
) -> torch.Tensor:
    """Return max(0, margin - (m_i - m_j)) for i above j, averaged over pairs that are not tied.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        pairs: As for :func:`ranknet`.
        margin: Difference in logits above which a pair costs nothing, at least 0.
        confident: As for :func:`ranknet`.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape or a hyper-parameter is unusable.
    """
    check_number("margin", margin, 0.0)
    margins, targets, chosen = _compared(margins, targets, mask, pairs, 0.0, confident)
    signs = pairwise_differences(targets).sign().to(margins.dtype)
    return masked_mean(F.relu(margin - signs * pairwise_differences(margins)), chosen, dims=2)


def fidelity(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    pairs: torch.Tensor | None = None,
    *,
    temperature: float = 0.0,
    confident: float = 0.0,
) -> torch.Tensor:
    """Return 1 - sqrt(p q) - sqrt((1 - p)(1 - q)), averaged over pairs.

    q = sigmoid(m_i - m_j) and p is the label. Bounded, so that a few wrong labels cost little.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        pairs: As for :func:`ranknet`.
        temperature: As for :func:`ranknet`.
        confident: As for :func:`ranknet`.

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: If a shape or a hyper-parameter is unusable.
    """
    margins, targets, chosen = _compared(margins, targets, mask, pairs, temperature, confident)
    labels = _labels(targets, temperature).to(margins.dtype)
    differences = pairwise_differences(margins)
    # The root of a sigmoid through its logarithm: sqrt alone has an infinite slope at 0.
    above = labels.sqrt() * (F.logsigmoid(differences) / 2).exp()
    below = (1 - labels).sqrt() * (F.logsigmoid(-differences) / 2).exp()
    return masked_mean(1 - above - below, chosen, dims=2)


def _compared(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None,
    pairs: torch.Tensor | None,
    temperature: float,
    confident: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return margins, targets, and (..., L, L): which pairs to compare, each pair once."""
    check_number("temperature", temperature, 0.0)
    margins, targets, mask = check_lists(margins, targets, mask)
    chosen = pair_mask(mask)
    if pairs is not None:
        if pairs.dtype != torch.bool or pairs.shape[-2:] != chosen.shape[-2:]:
            raise ValueError(
                f"pairs have shape {tuple(pairs.shape)} and type {pairs.dtype}, but must be "
                f"(..., {margins.shape[-1]}, {margins.shape[-1]}) of torch.bool"
            )
        chosen = chosen & (pairs | pairs.mT)
    # Soft labels are defined for ties too, but a tie is not among the confident pairs.
    if temperature == 0 or confident != 0:
        chosen = _confident(targets, chosen, confident)
    return margins, targets, chosen.triu(diagonal=1)


def _confident(targets: torch.Tensor, pairs: torch.Tensor, quantile: float) -> torch.Tensor:
    if not 0 <= quantile < 1:
        raise InputError(
            f"confident quantile ({quantile}) must be at least 0 and below 1: 0 keeps all pairs, "
            "0.5 the half that differs more"
        )
    differences = pairwise_differences(targets).abs()
    pairs = pairs.expand(torch.broadcast_shapes(pairs.shape, differences.shape))
    differences = differences.expand(pairs.shape)
    kept = pairs & (differences > 0)
    if quantile == 0:
        return kept
    # Both (i, j) and (j, i) are counted, which changes no quantile. Excluded pairs sort to the end.
    ascending = torch.where(pairs, differences, math.inf).flatten(-2).sort(dim=-1).values
    count = pairs.sum(dim=(-2, -1))
    place = (count.double() * quantile).floor().long().unsqueeze(-1)
    return kept & (differences >= ascending.gather(-1, place).unsqueeze(-1))


def _labels(targets: torch.Tensor, temperature: float) -> torch.Tensor:
    differences = pairwise_differences(targets)
    if temperature == 0:
        return (differences > 0).to(targets.dtype)
    return (differences / temperature).sigmoid()
