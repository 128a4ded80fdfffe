"""Why a score is what it is: the pair with the lowest score, and how far the pairs are apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from iqa_core.columns import SCORES
from iqa_core.tables.schema import ExtraColumn

__all__ = ["REASONS"]


def _pair_scores(rows: pa.Table) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the pairs' names, (N, P) scores, and (N,) which rows have none."""
    column = rows.column(SCORES).combine_chunks()
    names = [column.type.field(place).name for place in range(column.type.num_fields)]
    # `flatten` keeps the nulls of the struct itself.
    each = [values.to_numpy(zero_copy_only=False).astype(np.float64) for values in column.flatten()]
    scores = np.stack(each, axis=1)
    return names, scores, np.isnan(scores).any(axis=1)


def _worst_pair(rows: pa.Table) -> pa.Array:
    names, scores, missing = _pair_scores(rows)
    lowest = np.where(missing, 0, np.where(missing[:, None], 0, scores).argmin(axis=1))
    places = pa.array(lowest.astype(np.int64), mask=missing)
    return pa.array(names, pa.string()).take(places)


def _spread(rows: pa.Table) -> pa.Array:
    _, scores, missing = _pair_scores(rows)
    spread = np.where(missing[:, None], 0, scores).std(axis=1)
    return pa.array(spread.astype(np.float32), mask=missing)


#: The columns of ``--reasons``.
REASONS = (
    ExtraColumn(
        "worst_pair",
        pa.string(),
        "the pair with the lowest score, the first of equal ones",
        _worst_pair,
    ),
    ExtraColumn(
        "spread", pa.float32(), "standard deviation of the scores of the pairs, 0 to 0.5", _spread
    ),
)
