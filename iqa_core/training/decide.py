"""Learned or fixed prompts: the evidence on held-out contents, by a paired interval.

Agreement with a teacher is no evidence: the teacher itself agrees most. What remains is the known order of
held-out images' degraded copies, or a column of opinions. Where the interval of the difference is not above
0, the fixed prompts are to be kept.

Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals);
whole contents are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iqa_core.evaluation.correlations import weighted_srcc
from iqa_core.training.known_order import MIN_LEVEL_GAP

__all__ = [
    "FEWEST_CONTENTS",
    "Evidence",
    "Interval",
    "column_evidence",
    "known_order_evidence",
    "verdict",
]

_RESAMPLES = 1000
_TAILS = (0.025, 0.975)
#: Held-out contents; with fewer the interval is no evidence.
FEWEST_CONTENTS = 8


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as ``0.71 [0.68, 0.74]``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Evidence:
    """Agreement on held-out contents.

    Attributes:
        measure: What with: ``known order`` or ``srcc NAME``.
        contents: Number of contents that were drawn.
        fixed: Of the fixed prompts.
        each: Of each context.
        learned: Of the contexts' average.
        difference: ``learned`` less ``fixed``, paired.
    """

    measure: str
    contents: int
    fixed: Interval
    each: tuple[Interval, ...]
    learned: Interval
    difference: Interval


def verdict(evidence: Evidence | None) -> tuple[bool, str]:
    """Return whether the learned prompts are better, and the sentence that says so.

    Args:
        evidence: What was measured; None if nothing could be.
    """
    if evidence is None:
        return False, (
            "nothing here shows whether the learned prompts are better than the fixed ones: that takes "
            "degraded copies (`iqa embed --views 4`) or a column of opinions"
        )
    if not math.isfinite(evidence.difference.value):
        return False, (
            f"{evidence.measure} can't be measured on {evidence.contents:,} held-out contents: the values, "
            "or the levels of degradation, are all equal"
        )
    found = f"{evidence.measure} {evidence.difference} on {evidence.contents:,} held-out contents"
    if evidence.contents < FEWEST_CONTENTS:
        return False, f"{found} are too few to tell learned from fixed prompts"
    if evidence.difference.low > 0:
        return True, f"the learned prompts are better than the fixed ones: {found}"
    if evidence.difference.high < 0:
        return False, f"the learned prompts are worse than the fixed ones: {found}"
    return False, f"the learned prompts are not shown to be better than the fixed ones: {found}"


def known_order_evidence(
    scores: Sequence[np.ndarray],
    levels: np.ndarray,
    groups: np.ndarray,
    *,
    within: bool,
    seed: int = 0,
) -> Evidence:
    """Compare by the known order of degraded copies.

    Args:
        scores: Of the fixed prompts, of each context, and of the average: (n, 1 + V) each, of n images
            and their copies.
        levels: (n, 1 + V) int8.
        groups: (n,) numbers of the images' contents.
        within: Whether only copies of one image are compared.
        seed: Of the resamples.
    """
    code, counts = _draw(groups, seed)
    member = (code[None, :] == np.arange(counts.shape[1])[:, None]).astype(np.float64)
    known = _resampled(
        _known(np.zeros_like(levels, float), levels, within)[1], member, counts, within
    )
    found = [
        _resampled(_known(one, levels, within)[0], member, counts, within) / known for one in scores
    ]
    return _evidence("known order", counts.shape[1], found)


def column_evidence(
    name: str, scores: Sequence[np.ndarray], column: np.ndarray, groups: np.ndarray, seed: int = 0
) -> Evidence:
    """Compare by the rank correlation with a column.

    Args:
        name: Of the column.
        scores: Of the fixed prompts, of each context, and of the average: (n,) each.
        column: (n,), higher is better.
        groups: (n,) numbers of the images' contents.
        seed: Of the resamples.
    """
    code, counts = _draw(groups, seed)
    found: list[np.ndarray] = []
    for one in scores:
        blocks = np.array_split(counts, 1 + counts.size // 2**20)
        found.append(np.concatenate([weighted_srcc(one, column, b[:, code]) for b in blocks]))
    return _evidence(f"srcc {name}", counts.shape[1], found)


def _draw(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's content, and how often each content is in each resample; the first has all once."""
    names, code = np.unique(groups, return_inverse=True)
    count = len(names)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    return code, np.concatenate([np.ones((1, count), dtype=drawn.dtype), drawn])


def _known(scores: np.ndarray, levels: np.ndarray, within: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return for each two images (or each one) the sum of signs of known pairs, and their number."""
    shape = (len(levels),) if within else (len(levels), len(levels))
    signs, number = np.zeros(shape), np.zeros(shape)
    for better in range(levels.shape[1]):
        for worse in range(levels.shape[1]):
            if within:
                gap = levels[:, worse] - levels[:, better]
                difference = scores[:, better] - scores[:, worse]
            else:
                gap = levels[None, :, worse] - levels[:, None, better]
                difference = scores[:, None, better] - scores[None, :, worse]
            is_known = gap >= MIN_LEVEL_GAP
            signs += np.where(is_known, np.sign(difference), 0)
            number += is_known
    return signs, number


def _resampled(
    values: np.ndarray, member: np.ndarray, counts: np.ndarray, within: bool
) -> np.ndarray:
    if within:
        one: np.ndarray = counts @ (member @ values)
        return one
    both: np.ndarray = ((counts @ (member @ values @ member.T)) * counts).sum(axis=1)
    return both


def _evidence(measure: str, contents: int, found: Sequence[np.ndarray]) -> Evidence:
    intervals = [_interval(one) for one in found]
    return Evidence(
        measure,
        contents,
        intervals[0],
        tuple(intervals[1:-1]),
        intervals[-1],
        _interval(found[-1] - found[0]),
    )


def _interval(values: np.ndarray) -> Interval:
    """Of the value of all contents, and those of the resamples."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Interval(float(values[0]), math.nan, math.nan)
    low, high = np.quantile(drawn, _TAILS)
    return Interval(float(values[0]), float(low), float(high))
