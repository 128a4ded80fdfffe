"""Which row of a feature cache is trained on, and which is held out: nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IDENTITY
from iqa_core.errors import InputError, Status
from iqa_core.training.data import COLUMN, TrainingData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.tables.feature_cache import FeatureCache

__all__ = ["MAX_HELD_OUT", "DataPlan", "check_teacher", "numbers_of", "plan_training_data"]

#: Further held-out rows are not read: they would not make the agreement more exact.
MAX_HELD_OUT = 20_000
_MIN_HELD_OUT = 8


@dataclass(frozen=True, eq=False)
class DataPlan:
    """Which row of a cache goes where.

    Attributes:
        data: What will be written; its folder is empty.
        train_place: (rows,) int64 in the cache's order: the row's place among the rows to train on,
            -1 if it is not one of them.
        held_out_place: The same among the held-out rows.
    """

    data: TrainingData
    train_place: np.ndarray
    held_out_place: np.ndarray


def check_teacher(cache: FeatureCache, teacher: str, watch: Sequence[str] = ()) -> None:
    """Refuse a teacher or a watched column that the cache doesn't have.

    Args:
        cache: The features.
        teacher: ``ensemble``, ``per-pair`` or ``column:NAME``.
        watch: Names of columns.

    Raises:
        InputError: If the teacher is none of these, or a column is missing or not numeric.
    """
    if teacher not in ("ensemble", "per-pair") and not teacher.startswith(COLUMN):
        raise InputError(
            argument="teacher",
            value=teacher,
            limit="ensemble, per-pair or column:NAME",
            fix="choose one of these",
        )
    if teacher.startswith(COLUMN):
        _check_column(cache, "teacher", teacher, teacher.removeprefix(COLUMN))
    for name in watch:
        _check_column(cache, "watch", name, name)


def _check_column(
    cache: FeatureCache, argument: str, value: str, name: str, *, numeric: bool = True
) -> None:
    if name not in cache.kept:
        raise InputError(
            argument=argument,
            value=value,
            limit=f"a column that was kept with the features ({', '.join(cache.kept) or 'none was'})",
            fix=f"run `iqa embed` with --keep {name}",
        )
    kind = cache.schema.field(name).type
    if numeric and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(
            argument=argument,
            value=value,
            limit=f"a numeric column, not one of type {kind}",
            fix="choose another column",
        )


def plan_training_data(
    cache: FeatureCache,
    pairs: int,
    *,
    teacher: str = "ensemble",
    holdout: float = 0.1,
    holdout_by: str | None = None,
    watch: Sequence[str] = (),
) -> DataPlan:
    """Decide which row of a feature cache goes where.

    Args:
        cache: The features.
        pairs: P, the number of base prompt pairs.
        teacher: ``ensemble``, ``per-pair`` or ``column:NAME``.
        holdout: Share of the rows to measure on, by a hash of the row's identity: whether a row is
            held out depends neither on other rows nor on the seed.
        holdout_by: Column to hash instead: rows of equal value are held out together.
        watch: Numeric columns to report agreement with.

    Raises:
        InputError: If a column is unusable or too few rows are held out.
    """
    check_teacher(cache, teacher, watch)
    if holdout_by is not None:
        _check_column(cache, "holdout_by", holdout_by, holdout_by, numeric=False)
    train, held_out, order = _sides(cache, teacher, holdout, holdout_by)
    rows, held_out_rows = int(train.sum()), int(held_out.sum())
    if held_out_rows < _MIN_HELD_OUT:
        raise InputError(
            argument="holdout",
            value=holdout,
            limit=f"large enough to hold out {_MIN_HELD_OUT} rows, not only {held_out_rows} of "
            f"{rows + held_out_rows:,}",
            fix="raise it, or embed more images",
        )
    data = TrainingData(
        folder="",
        rows=rows,
        held_out_rows=min(held_out_rows, MAX_HELD_OUT),
        unused=len(order) - rows - held_out_rows,
        width=cache.width,
        pairs=pairs,
        teacher=teacher,
        watched=tuple(watch),
        views=cache.views,
        trust=(1.0,) * pairs,
    )
    return DataPlan(data, _places(train, order), _places(held_out, order))


def _sides(
    cache: FeatureCache, teacher: str, holdout: float, holdout_by: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which rows are trained on, which are held out, and every row's hash to order by."""
    hashes, sides, usable = [], [], []
    column = teacher.removeprefix(COLUMN) if teacher.startswith(COLUMN) else None
    read = [column] if column else []
    read += [holdout_by] if holdout_by and holdout_by not in read else []
    for table in cache.tables(["status", *read]):
        hashes.append(_hashes(table.select(list(IDENTITY))))
        sides.append(_hashes(table.select([holdout_by])) if holdout_by else hashes[-1])
        ok = pc.equal(table.column("status"), Status.OK.value).to_numpy()
        if column:
            ok = ok & np.isfinite(numbers_of(table, [column])[:, 0])
        usable.append(ok)
    order, side, ok = (np.concatenate(parts) for parts in (hashes, sides, usable))
    held_out = ok & (side < np.uint64(holdout * 2**64))
    return ok & ~held_out, held_out, order


def _places(chosen: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Number the chosen rows by their hash; -1 for the others."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(order[rows], kind="stable")]
    places = np.full(len(order), -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return places


def _hashes(table: pa.Table) -> np.ndarray:
    """Return a 64-bit hash of each row, the same on every machine."""
    frame = table.to_pandas()
    hashed: np.ndarray = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashed


def numbers_of(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return numeric columns as (N, len(names)) float64, null as NaN."""
    columns = [pc.cast(table.column(name), pa.float64(), safe=False).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0))
