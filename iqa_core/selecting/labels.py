"""Which rows to label: the order in which their labels would teach a calibration most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqa_core.columns import MANIFEST_FILE, MANIFEST_ROW
from iqa_core.evaluation.labelling import rank_for_labelling
from iqa_core.selecting.engine import identifier, text
from iqa_core.selecting.quota import random_key
from iqa_core.selecting.smallest import find_limits, is_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.selecting.engine import Engine

__all__ = ["labelling_key"]

#: Candidates among which disagreement is compared: a random sample, so that memory is bounded.
_AMONG = 100_000
_LAST = 1e15


def labelling_key(
    engine: Engine, rank: str, pairs: Sequence[str], count: int, seed: int
) -> tuple[str, int]:
    """Choose rows among the view ``_iqa_candidates``.

    They are ranked by :func:`iqa_core.evaluation.labelling.rank_for_labelling` among a random sample of
    the rows with a rank.

    Args:
        engine: Where the view is.
        rank: SQL of a DOUBLE, null where it is not finite.
        pairs: SQL of the scores whose disagreement counts; without any, only ``rank`` does.
        count: How many.
        seed: Of the sample and of what is random in the ranking.

    Returns:
        SQL of a key of candidates: their place for the chosen ones, one and the same higher number for
        others with a rank, null for others. And how many were chosen.
    """
    identity = f"{MANIFEST_FILE}, {MANIFEST_ROW}"
    engine.run(
        f"CREATE TEMP TABLE drawn AS SELECT {identity}, 0 AS grp, {random_key(seed)} AS key "
        f"FROM _iqa_candidates WHERE {rank} IS NOT NULL"
    )
    find_limits(engine, "drawn_limits", "drawn", f"[least(n, {_AMONG})]")
    engine.run(
        f"CREATE TEMP TABLE compared AS SELECT {identity} FROM drawn d JOIN drawn_limits l "
        f"ON d.grp = l.grp WHERE {is_within('d', 'l')}"
    )
    values = ", ".join(
        f"CAST({sql} AS DOUBLE) AS {identifier(f'v{place}')}"
        for place, sql in enumerate([rank, *(pairs or [rank])])
    )
    rows = engine.run(
        f"SELECT {identity}, {values} FROM _iqa_candidates SEMI JOIN compared "
        f"USING ({identity}) ORDER BY {identity}"
    )
    numbers = np.array([row[2:] for row in rows], dtype=np.float64)
    chosen: Sequence[int] = ()
    if rows:
        chosen = rank_for_labelling(numbers[:, 0], numbers[:, 1:], count, seed=seed).tolist()
    places = [
        f"({text(rows[row][0])}, {rows[row][1]}, {place})" for place, row in enumerate(chosen)
    ]
    engine.run(
        f"CREATE TEMP TABLE to_label AS SELECT * FROM (VALUES {', '.join(places)}) "
        f"AS t({identity}, place)"
        if places
        else f"CREATE TEMP TABLE to_label AS SELECT {identity}, 0 AS place FROM drawn WHERE false"
    )
    found = (
        f"SELECT t.place FROM to_label t WHERE t.{MANIFEST_FILE} = _iqa_candidates.{MANIFEST_FILE} "
        f"AND t.{MANIFEST_ROW} = _iqa_candidates.{MANIFEST_ROW}"
    )
    key = f"CASE WHEN {rank} IS NOT NULL THEN coalesce(({found}), {_LAST:.0f})::DOUBLE END"
    return key, len(chosen)
