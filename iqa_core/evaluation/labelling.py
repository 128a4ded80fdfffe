"""Which images to label next: those that would teach a calibration most.

A curve needs labels over the whole range of scores, not where most images are. Where the prompt pairs
disagree on an image, its score says least of its quality. Taking only such images would make the intervals
of a calibration too wide for all others, so every second one is drawn at random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["disagreement", "rank_for_labelling"]

#: Intervals of the score range; a curve with four parameters needs no more.
_STRATA = 10
#: Scores beyond these quantiles belong to the first and the last interval.
_RANGE = (0.01, 0.99)


def disagreement(pair_scores: ArrayLike) -> np.ndarray:
    """Return (N,) standard deviations, over pairs, of ranks among all images, in [0, 0.5].

    Ranks, as the scores of one pair may all be higher than those of another. NaN where a score is missing.

    >>> disagreement([[0.1, 0.7], [0.2, 0.9], [0.3, 0.8]]).round(2).tolist()
    [0.0, 0.25, 0.25]

    Args:
        pair_scores: (N, P) scores.
    """
    values = np.asarray(pair_scores, dtype=np.float64)
    missing = np.isnan(values).any(axis=1)
    ranks = np.full(values.shape, np.nan)
    whole = values[~missing]
    order = whole.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    ranks[~missing] = order / max(1, len(whole) - 1)
    return np.asarray(ranks.std(axis=1))


def rank_for_labelling(
    scores: ArrayLike, pair_scores: ArrayLike, count: int, *, seed: int = 0
) -> np.ndarray:
    """Return the rows to label, those that teach most first.

    Args:
        scores: (N,) scores, NaN where there is none.
        pair_scores: (N, P) scores of the pairs.
        count: How many.
        seed: Of the random half.

    Returns:
        At most ``count`` row numbers, each once: in turn from ten intervals of the score range, and there
        in turn the one on which the pairs disagree most and a random one.
    """
    values = np.asarray(scores, dtype=np.float64)
    spread = disagreement(pair_scores)
    usable = np.flatnonzero(np.isfinite(values) & np.isfinite(spread))
    if not len(usable) or count < 1:
        return usable[:0]
    low, high = np.quantile(values[usable], _RANGE)
    inner = np.linspace(low, high, _STRATA + 1)[1:-1]
    stratum = np.searchsorted(inner, values[usable], side="right")
    random = np.random.default_rng(seed)
    queues = []
    for number in range(_STRATA):
        rows = usable[stratum == number]
        by_spread = rows[np.argsort(-spread[rows], kind="stable")]
        queues.append(_in_turn(by_spread, random.permutation(rows)))
    chosen: list[int] = []
    for place in range(max(map(len, queues))):
        chosen += [int(queue[place]) for queue in queues if place < len(queue)]
    return np.array(chosen[:count], dtype=np.int64)


def _in_turn(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the rows of two orders of the same rows, in turn, each where it comes first."""
    both = np.stack([first, second], axis=1).ravel()
    places = np.unique(both, return_index=True)[1]
    return np.asarray(both[np.sort(places)])
