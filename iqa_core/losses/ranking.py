"""Ranking losses on logit margins: pure functions, one value for each list.

Every loss here is called as ``loss(margins, targets, mask)``:

* ``margins`` (..., L): the student's logit margins of one list of L images; leading dimensions are
  further lists, such as one for each prompt pair. Any range; values and gradients stay finite far
  beyond +-100. Half precision is computed in float32.
* ``targets`` (..., L): what to agree with, higher is better: teacher scores or opinion scores.
  Finite. Broadcast, so that one list of targets serves all prompt pairs.
* ``mask`` (..., L) bool: False takes an image out of its list, as if it were not there; what stands
  in its place (NaN too) reaches neither the value nor the gradient. None is all True.

and returns (...): one loss for each list, for the caller to average. A list that asks for nothing
(no image, one image, no pair to compare, equal targets where a loss reads only their order) costs
exactly 0 and has no gradient. No loss depends on the order in which the images are given.

Ties: images of equal target have no order to learn. :func:`ranknet`, :func:`margin_ranking`,
:func:`fidelity` and :func:`listmle` don't compare them; :func:`listnet`, :func:`approx_ndcg`,
:func:`soft_spearman` and :func:`plcc` treat them alike because the target is a number there.

Sources, and what differs:
    ranknet: Burges et al., "Learning to Rank using Gradient Descent", ICML 2005,
        https://doi.org/10.1145/1102351.1102363. Tied pairs are left out unless labels are soft.
    margin_ranking: Herbrich, Graepel, Obermayer, "Large Margin Rank Boundaries for Ordinal
        Regression", 2000; for IQA: Liu, van de Weijer, Bagdanov, "RankIQA", ICCV 2017,
        https://arxiv.org/abs/1707.08347.
    fidelity: Tsai, Liu, Qin, Chen, Ma, "FRank: A Ranking Method with Fidelity Loss", SIGIR 2007,
        https://doi.org/10.1145/1277741.1277808. As for ranknet.
    listmle: Xia, Liu, Wang, Zhang, Li, "Listwise Approach to Learning to Rank: Theory and
        Algorithm", ICML 2008, https://doi.org/10.1145/1390156.1390306. Divided by the length, so
        that the step does not grow with the list; tied images don't compete.
    listnet: Cao, Qin, Liu, Tsai, Li, "Learning to Rank: From Pairwise Approach to Listwise
        Approach", ICML 2007, https://doi.org/10.1145/1273496.1273513. A temperature on the targets.
    approx_ndcg, soft_spearman: Qin, Liu, Li, "A General Approximation Framework for Direct
        Optimization of Information Retrieval Measures", Information Retrieval 13, 2010,
        https://doi.org/10.1007/s10791-009-9124-x (ranks by pairwise sigmoids). NDCG's relevance is
        the target stretched over the list, so that any unit of targets does; Spearman's
        coefficient of these ranks is this project's use of them.
    upl: Huang, Chu, Wei, "Unsupervised Prompt Learning for Vision-Language Models",
        https://arxiv.org/abs/2204.03649. Two classes, the sides of a prompt pair; one teacher.
    plcc: Li, Jiang, Jiang, "Norm-in-Norm Loss with Faster Convergence and Better Performance for
        Image Quality Assessment", ACM MM 2020, https://arxiv.org/abs/2008.03889 (its p = q = 2).
"""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "LOSSES",
    "Loss",
    "RankingLoss",
    "approx_ndcg",
    "confident_pairs",
    "fidelity",
    "listmle",
    "listnet",
    "make_loss",
    "margin_ranking",
    "plcc",
    "pseudo_label_loss",
    "pseudo_labels",
    "ranknet",
    "soft_spearman",
    "upl",
]


def confident_pairs(
    targets: torch.Tensor, mask: torch.Tensor | None = None, *, quantile: float = 0.0
) -> torch.Tensor:
    """Choose the pairs whose targets differ most: those whose order a teacher is surest of.

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
    _, targets, mask = _check(targets, targets, mask)
    return _confident(targets, _both(mask), quantile)


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
    differences = _differences(margins)
    above, below = F.logsigmoid(differences), F.logsigmoid(-differences)
    return _mean(-labels * above - (1 - labels) * below, chosen, dims=2)


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
        margin: Distance in logits from which on a pair costs nothing, at least 0.
        confident: As for :func:`ranknet`.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape or a hyper-parameter is unusable.
    """
    _require("margin", margin, 0.0)
    margins, targets, chosen = _compared(margins, targets, mask, pairs, 0.0, confident)
    signs = _differences(targets).sign().to(margins.dtype)
    return _mean(F.relu(margin - signs * _differences(margins)), chosen, dims=2)


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
    differences = _differences(margins)
    # The root of a sigmoid through its logarithm: sqrt alone has an infinite slope at 0.
    above = labels.sqrt() * (F.logsigmoid(differences) / 2).exp()
    below = (1 - labels).sqrt() * (F.logsigmoid(-differences) / 2).exp()
    return _mean(1 - above - below, chosen, dims=2)


def listmle(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean over images of log(exp(m_i) + sum over t_k < t_i of exp(m_k)) - m_i.

    Without ties that is the negative logarithm of the probability of the targets' order in the
    Plackett-Luce model of the margins, divided by the number of images. Tied images each win
    against all below them, and not against each other: a list that is one tie costs 0.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.

    Returns:
        (...) at least 0.

    Raises:
        ValueError: If a shape is unusable.
    """
    margins, targets, mask = _check(margins, targets, mask)
    # Worst first; masked images are before the worst, with a weight that vanishes. It must not be
    # -inf, whose cumulative sum has no gradient.
    nothing = torch.finfo(margins.dtype).min / 4
    ascending, order = torch.where(mask, targets, -math.inf).sort(dim=-1)
    worse = torch.searchsorted(ascending, ascending)  # how many are
    there = mask.expand(order.shape).gather(-1, order)
    ordered = torch.where(mask, margins, nothing).gather(-1, order.expand(margins.shape))
    below = F.pad(ordered.logcumsumexp(dim=-1), (1, 0), value=nothing)
    losses = torch.logaddexp(ordered, below.gather(-1, worse.expand(margins.shape))) - ordered
    return _mean(losses, there, dims=1)


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
    _require("temperature", temperature, 0.0, above=True)
    margins, targets, mask = _check(margins, targets, mask)
    # Not -inf: 0 * -inf is NaN, and a list of nothing else has no softmax.
    nothing = torch.finfo(margins.dtype).min / 4
    goal = torch.where(mask, targets.to(margins.dtype) / temperature, nothing).softmax(dim=-1)
    logs = torch.where(mask, margins, nothing).log_softmax(dim=-1)
    return -torch.where(mask, goal * logs, 0.0).sum(dim=-1)


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
    min) / (max - min) over the list; gain 2^r - 1; discount 1 / log2(1 + rank). It looks at the
    best images above all.

    Args:
        margins: (..., L).
        targets: (..., L).
        mask: (..., L) bool, or None.
        temperature: Above 0, in logits: how far apart two margins are before their order is clear.
        grades: Above 0, the relevance of a list's best image; its worst has 0. 4 makes the five
            grades from bad to excellent 0 to 4.

    Returns:
        (...) below 1, and above 0 but for rounding; 0 for a list whose targets are all equal.

    Raises:
        ValueError: If a shape or a hyper-parameter is unusable.
    """
    _require("temperature", temperature, 0.0, above=True)
    _require("grades", grades, 0.0, above=True)
    margins, targets, mask = _check(margins, targets, mask)
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
    _require("temperature", temperature, 0.0, above=True)
    margins, targets, mask = _check(margins, targets, mask)
    above = -_differences(targets)
    wins = ((above > 0).to(margins.dtype) + (above == 0).to(margins.dtype) / 2) * _both(mask)
    # Only differences of ranks matter, so the constant in "rank" is left out.
    return _one_minus_correlation(_soft_ranks(margins, mask, temperature), wins.sum(dim=-1), mask)


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
    margins, targets, mask = _check(margins, targets, mask)
    return _one_minus_correlation(margins, targets.to(margins.dtype), mask)


def pseudo_labels(
    targets: torch.Tensor, mask: torch.Tensor | None = None, *, top: int = 16
) -> torch.Tensor:
    """Label the images that a teacher is surest of: the best as positive, the worst as negative.

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
    _require("top", top, 1)
    _, targets, mask = _check(targets, targets, mask)
    each = (mask.sum(dim=-1, keepdim=True) // 2).clamp(max=int(top))
    # A position found by sorting, not by L x L comparisons: this also runs on whole data sets.
    best = _not_better(-targets, mask) <= each
    worst = _not_better(targets, mask) <= each
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
    margins, labels, mask = _check(margins, labels, mask)
    signs = labels.sign().to(margins.dtype)
    return _mean(F.softplus(-signs * margins), mask & (labels != 0), dims=1)


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


class RankingLoss(Protocol):
    """A loss whose hyper-parameters are set."""

    def __call__(
        self, margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None, /
    ) -> torch.Tensor:
        """Return (...) losses of (..., L) margins."""


@dataclass(frozen=True)
class Loss:
    """An entry of :data:`LOSSES`.

    Attributes:
        function: The loss.
        kind: ``pairwise`` losses also take ``pairs``, a mask over pairs, as a fourth argument.
        summary: What it is, in a few words.
    """

    function: Callable[..., torch.Tensor]
    kind: Literal["pairwise", "listwise", "pseudo-label", "linear"]
    summary: str

    @property
    def defaults(self) -> Mapping[str, float]:
        """The hyper-parameters by name, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


#: The losses by name, as the command line spells them.
LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "ranknet": Loss(ranknet, "pairwise", "cross-entropy of each pair's order"),
        "margin": Loss(margin_ranking, "pairwise", "hinge on each pair's difference"),
        "fidelity": Loss(fidelity, "pairwise", "bounded loss of each pair's order"),
        "listmle": Loss(listmle, "listwise", "likelihood of the whole order"),
        "listnet": Loss(listnet, "listwise", "cross-entropy of top-one probabilities"),
        "approx-ndcg": Loss(approx_ndcg, "listwise", "NDCG of approximate ranks"),
        "soft-spearman": Loss(soft_spearman, "listwise", "rank correlation of approximate ranks"),
        "upl": Loss(upl, "pseudo-label", "cross-entropy on the most confident images"),
        "plcc": Loss(plcc, "linear", "linear correlation with measured targets"),
    }
)


def make_loss(name: str, **hyper_parameters: float) -> RankingLoss:
    """Return a loss by name with its hyper-parameters set, and checked.

    Args:
        name: A key of :data:`LOSSES`.
        **hyper_parameters: Those of this loss; what is left out has its default.

    Returns:
        ``loss(margins, targets, mask=None)``; a pairwise one also takes ``pairs``.

    Raises:
        InputError: If there is no such loss or hyper-parameter, or a value is unusable.
    """
    if name not in LOSSES:
        raise InputError(f"loss {name!r} is none of {', '.join(LOSSES)}: choose one of these")
    loss = LOSSES[name]
    unknown = sorted(set(hyper_parameters) - set(loss.defaults))
    if unknown:
        known = ", ".join(loss.defaults) or "none"
        raise InputError(f"loss {name} has no hyper-parameter {unknown[0]!r}: it takes {known}")
    bound = functools.partial(loss.function, **hyper_parameters)
    bound(torch.zeros(1), torch.zeros(1))  # a bad value now, not after an hour of features
    return bound


def _require(name: str, value: float, limit: float, *, above: bool = False) -> None:
    if not (math.isfinite(value) and (value > limit if above else value >= limit)):
        bound = "above" if above else "at least"
        raise InputError(f"{name} ({value}) must be a finite number {bound} {limit:g}")


def _check(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return all three, zeros where masked.

    Targets and mask keep leading dimensions that only broadcast: what is asked of many prompt
    pairs alike is worked out once.
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
    """Whether a tensor expands to a shape, its lists being as long."""
    return bool(
        0 < len(shape) <= len(to)
        and shape[-1] == to[-1]
        and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))
    )


def _both(mask: torch.Tensor) -> torch.Tensor:
    """(..., L) -> (..., L, L): true for pairs of two different images that are there."""
    different = ~torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    return mask.unsqueeze(-1) & mask.unsqueeze(-2) & different


def _differences(values: torch.Tensor) -> torch.Tensor:
    """(..., L) -> (..., L, L): v_i - v_j at (i, j)."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)


def _labels(targets: torch.Tensor, temperature: float) -> torch.Tensor:
    differences = _differences(targets)
    if temperature == 0:
        return (differences > 0).to(targets.dtype)
    return (differences / temperature).sigmoid()


def _compared(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None,
    pairs: torch.Tensor | None,
    temperature: float,
    confident: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return margins, targets, and (..., L, L): which pairs to compare, each of them once."""
    _require("temperature", temperature, 0.0)
    margins, targets, mask = _check(margins, targets, mask)
    chosen = _both(mask)
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
            "0.5 the more different half"
        )
    differences = _differences(targets).abs()
    pairs = pairs.expand(torch.broadcast_shapes(pairs.shape, differences.shape))
    differences = differences.expand(pairs.shape)
    kept = pairs & (differences > 0)
    if quantile == 0:
        return kept
    # Both (i, j) and (j, i) are counted, which moves no quantile. Those left out sort to the end.
    ascending = torch.where(pairs, differences, math.inf).flatten(-2).sort(dim=-1).values
    count = pairs.sum(dim=(-2, -1))
    place = (count.double() * quantile).floor().long().unsqueeze(-1)
    return kept & (differences >= ascending.gather(-1, place).unsqueeze(-1))


def _soft_ranks(margins: torch.Tensor, mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """(..., L) -> (..., L): 1 for the highest margin of a list, up to L for the lowest."""
    above = (-_differences(margins) / temperature).sigmoid()
    return 1 + torch.where(_both(mask), above, 0.0).sum(dim=-1)


def _not_better(targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(..., L) -> (..., L): how many images of the list have at most this target."""
    present = torch.where(mask, targets, math.inf)
    ascending = present.sort(dim=-1).values
    return torch.searchsorted(ascending, present.contiguous(), right=True)


def _mean(values: torch.Tensor, chosen: torch.Tensor, *, dims: int) -> torch.Tensor:
    """Return the mean of the chosen values over the last dimensions; 0 where none is chosen."""
    last = tuple(range(-dims, 0))
    total = torch.where(chosen, values, 0.0).sum(dim=last)
    return total / chosen.sum(dim=last).clamp(min=1)


def _one_minus_correlation(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
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
