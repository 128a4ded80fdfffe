"""Compares two runs, and finds the images that they, or a run's own pairs, disagree about.

Scores of other prompts or weights are on other scales, so that only ranks compare: an image's place
among the images that both scored, from 0 (the worst) to 1 (the best).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from iqa_core.columns import IDENTITY, URI
from iqa_core.errors import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

__all__ = ["PairDispute", "RunDispute", "compare_pairs", "compare_runs", "largest_gap"]


@dataclass(frozen=True, eq=False)
class RunDispute:
    """Another run, aligned with the rows of this one.

    Attributes:
        joined_by: ``place`` in the manifest, or ``uri``.
        rows: This run's rows that the other has too.
        only_here: Rows that only this run has, or whose URI is not unique.
        only_there: Likewise of the other run.
        score: (N,) the other's scores of this run's rows, NaN where there is none.
        here: (N,) rank of this run's score among the images scored in both, NaN elsewhere.
        there: (N,) rank of the other's.
        statuses: (status here, status there) -> rows, for those that differ, most first.
        all_scores: (M,) all scores of the other run.
    """

    joined_by: str
    rows: int
    only_here: int
    only_there: int
    score: np.ndarray
    here: np.ndarray
    there: np.ndarray
    statuses: dict[tuple[str, str], int]
    all_scores: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Rank here minus rank there, (N,): positive where this run ranks an image higher."""
        return np.asarray(self.here - self.there)


@dataclass(frozen=True, eq=False)
class PairDispute:
    """How much the pairs of one run disagree about each image.

    Attributes:
        spread: (N,) highest rank minus lowest, over the pairs; NaN without scores.
        highest: (N,) index of the pair that ranks the image highest.
        lowest: (N,) index of the pair that ranks it lowest.
        ranks: (P, N) rank of each pair's score.
    """

    spread: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray
    ranks: np.ndarray


def compare_runs(here: pa.Table, there: pa.Table, *, same_manifest: bool) -> RunDispute:
    """Align the rows of two runs.

    Args:
        here: (N rows) identity, ``uri``, ``status`` and ``score`` of the one run.
        there: (M rows) the same of the other.
        same_manifest: Whether a place in the manifest means the same image in both; otherwise rows
            are joined by ``uri``, where it is there and unique.

    Returns:
        The other run's scores and ranks, in the order of this run's rows.
    """
    keys = [*IDENTITY] if same_manifest else [URI]
    first, second = (_frame(table, keys) for table in (here, there))
    unique = first.index[first[keys].notna().all(axis=1) & ~first.duplicated(keys, keep=False)]
    others = second[second[keys].notna().all(axis=1) & ~second.duplicated(keys, keep=False)]
    joined = first.loc[unique].reset_index().merge(others, on=keys, suffixes=("", "_there"))
    score = np.full(len(first), np.nan)
    score[joined["index"]] = joined["score_there"]
    both = np.isfinite(first["score"].to_numpy()) & np.isfinite(score)
    changed = joined[joined["status"] != joined["status_there"]]
    statuses = Counter(
        zip(changed["status"].astype(str), changed["status_there"].astype(str), strict=True)
    )
    return RunDispute(
        joined_by="uri" if keys == [URI] else "place",
        rows=len(joined),
        only_here=len(first) - len(joined),
        only_there=len(second) - len(joined),
        score=score,
        here=_ranks(np.where(both, first["score"], np.nan)),
        there=_ranks(np.where(both, score, np.nan)),
        statuses=dict(statuses.most_common()),
        all_scores=second["score"].dropna().to_numpy(),
    )


def compare_pairs(pairs: Mapping[str, np.ndarray]) -> PairDispute:
    """Find how much the pairs of a run disagree about each image.

    Args:
        pairs: Name -> (N,) scores, NaN where there is none; at least one pair.
    """
    ranks = np.stack([_ranks(values) for values in pairs.values()])
    some = np.where(np.isnan(ranks), 0.5, ranks)
    spread = np.where(np.isnan(ranks).any(axis=0), np.nan, np.ptp(some, axis=0))
    return PairDispute(spread, some.argmax(axis=0), some.argmin(axis=0), ranks)


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov statistic of two samples, (N,) and (M,), at least one value each.

    Returns:
        The largest difference of their cumulative distributions: 0 for equal ones, at most 1.
    """
    # only the p-value depends on the method, and SciPy's asymptotic one divides by zero for 1 and 1
    method: Literal["asymp", "exact"] = "asymp" if len(first) + len(second) > 2 else "exact"
    return float(stats.ks_2samp(first, second, method=method).statistic)


def _frame(table: pa.Table, keys: list[str]) -> pd.DataFrame:
    frame: pd.DataFrame = table.select([*keys, "status", "score"]).to_pandas()
    frame["score"] = frame["score"].astype(float).where(frame["status"] == Status.OK.value)
    return frame


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0 to 1, ties averaged; NaN stays, and one value alone is 0.5."""
    ranks = np.asarray(stats.rankdata(values, nan_policy="omit"))
    count = int(np.isfinite(values).sum())
    return (ranks - 1) / (count - 1) if count > 1 else np.where(np.isfinite(values), 0.5, np.nan)
