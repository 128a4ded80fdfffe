"""Which row of a feature cache is trained on, and which is held out: nothing is written here."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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

__all__ = [
    "MAX_BASES",
    "MAX_HELD_OUT",
    "MAX_ROWS",
    "DataPlan",
    "Places",
    "check_teacher",
    "numbers_of",
    "plan_training_data",
]

#: Further rows are not trained on: a context has a few thousand numbers.
MAX_ROWS = 131_072
#: Further held-out rows are not read: they would not make the agreement more exact.
MAX_HELD_OUT = 4096
#: Further images with copies are not read.
MAX_BASES = 16_384
_MIN_HELD_OUT = 8
_READ_FACTOR = 4  # rows that are read for each that is used, so that few part files don't decide


@dataclass(frozen=True, eq=False)
class Places:
    """Which row of a cache goes where.

    Attributes:
        cache: The features, of the part files that are read.
        train: (rows,) int64 in the cache's order: the row's place among the rows to train on,
            -1 if it is not one of them.
        held_out: The same among the held-out rows.
        groups: (rows,) int64: rows of equal value show the same, as far as is known.
    """

    cache: FeatureCache
    train: np.ndarray
    held_out: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, eq=False)
class DataPlan:
    """What a training reads.

    Attributes:
        data: What will be written; its folder is empty.
        rows: The rows to order.
        clean: The images with copies, where they are in a cache of their own.
        lower_is_better: Whether a low value of the teacher's column is a good image.
        weighs_teacher: Whether the teacher is weighted by its trust.
    """

    data: TrainingData
    rows: Places
    clean: Places | None = None
    lower_is_better: bool = False
    weighs_teacher: bool = True


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
    if name not in cache.further:
        raise InputError(
            argument=argument,
            value=value,
            limit=f"a column that was kept with the features ({', '.join(cache.further) or 'none was'})",
            fix=f"run `iqa embed` with --keep {name}",
        )
    kind = cache.schema.field(name).type
    if pa.types.is_nested(kind):
        raise InputError(
            argument=argument,
            value=value,
            limit=f"a column of single values, not one of type {kind}",
            fix="choose another column",
        )
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
    lower_is_better: bool = False,
    holdout: float = 0.1,
    holdout_by: str | None = None,
    watch: Sequence[str] = (),
    clean: FeatureCache | Literal["own", "best"] = "own",
    most_rows: int = MAX_ROWS,
    weighs_teacher: bool = True,
) -> DataPlan:
    """Decide which row of a feature cache goes where.

    A large cache is not read as a whole: part files are taken in the order of a hash of their names until
    they hold a few times what is used.

    Args:
        cache: The features.
        pairs: P, the number of base prompt pairs.
        teacher: ``ensemble``, ``per-pair`` or ``column:NAME``.
        lower_is_better: Whether a low value of the teacher's column is a good image.
        holdout: Share of the rows to measure on, by a hash of the row's identity: whether a row is
            held out depends neither on other rows nor on the seed.
        holdout_by: Column to hash instead: rows of equal value are held out together.
        watch: Numeric columns to report agreement with.
        clean: The images whose copies are compared: a cache of images known to be good, the tenth of the
            rows with the highest scores, or each row with its own copies only.
        most_rows: Rows to train on, at most :data:`MAX_ROWS`.
        weighs_teacher: Whether the teacher is weighted by its trust.

    Raises:
        InputError: If a column is unusable or too few rows are held out.
    """
    check_teacher(cache, teacher, watch)
    given = None if isinstance(clean, str) else clean
    for one in (cache, given):
        if holdout_by is not None and one is not None:
            _check_column(one, "holdout_by", holdout_by, holdout_by, numeric=False)
    if given is not None:
        _check_clean(cache, given)
    most = min(most_rows, MAX_ROWS)
    rows, unused = _sides(cache, teacher, holdout, holdout_by, most)
    held_out_rows = int((rows.held_out >= 0).sum())
    if held_out_rows < _MIN_HELD_OUT:
        usable = int((rows.train >= 0).sum()) + held_out_rows
        raise InputError(
            argument="holdout",
            value=holdout,
            limit=f"large enough to hold out {_MIN_HELD_OUT} rows, not only {held_out_rows} of "
            f"{usable:,}",
            fix="raise it, or embed more images",
        )
    bases = _sides(given, "", holdout, holdout_by, MAX_BASES)[0] if given is not None else None
    data = TrainingData(
        folder="",
        rows=int((rows.train >= 0).sum()),
        held_out_rows=held_out_rows,
        unused=unused,
        width=cache.width,
        pairs=pairs,
        teacher=teacher,
        watched=tuple(watch),
        views=cache.views if given is None else given.views,
        clean=clean if isinstance(clean, str) else "given",
    )
    return DataPlan(data, rows, bases, lower_is_better, weighs_teacher)


def _check_clean(cache: FeatureCache, clean: FeatureCache) -> None:
    if not clean.views:
        raise InputError(
            f"--clean-features {clean.folder.uri} has no degraded copies: make it by `iqa embed --views 4`"
        )
    if clean.tower != cache.tower:
        raise InputError(
            f"--clean-features {clean.folder.uri} and --features {cache.folder.uri} were made by other "
            "models or options: run `iqa embed` for both with the same"
        )


def _sides(
    cache: FeatureCache, teacher: str, holdout: float, holdout_by: str | None, most: int
) -> tuple[Places, int]:
    """Return which rows are trained on and which are held out, and how many can't be used."""
    hashes, sides, usable, targets = [], [], [], []
    column = teacher.removeprefix(COLUMN) if teacher.startswith(COLUMN) else None
    read = [column] if column else []
    read += [holdout_by] if holdout_by and holdout_by not in read else []
    sample, names, seen = copy(cache), [], 0
    enough = _READ_FACTOR * (most + MAX_HELD_OUT)
    for name in sorted(cache.parts, key=_hash_of_name):
        if seen >= enough:
            break
        names.append(name)
        sample.parts = [name]
        for table in sample.tables(["status", *read]):
            seen += len(table)
            hashes.append(_hashes(table.select(list(IDENTITY))))
            by = _hashes(_comparable(table.select([holdout_by]))) if holdout_by else hashes[-1]
            sides.append(by)
            ok = pc.equal(table.column("status"), Status.OK.value).to_numpy()
            if column:
                values = numbers_of(table, [column])[:, 0]
                ok = ok & np.isfinite(values)
                targets.append(values[ok])
            usable.append(ok)
    sample.parts = names
    if any(map(len, targets)) and not np.ptp(np.concatenate(targets)):
        raise InputError(
            argument="teacher",
            value=teacher,
            limit="a column whose values differ",
            fix="choose another column",
        )
    order, side, ok = (np.concatenate(parts) for parts in (hashes, sides, usable))
    held_out = ok & (side < np.uint64(holdout * 2**64))
    places = Places(
        sample,
        _places(ok & ~held_out, order, most),
        _places(held_out, order, MAX_HELD_OUT),
        side.view(np.int64),
    )
    return places, int((~ok).sum())


def _hash_of_name(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _places(chosen: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """Number the first chosen rows by their hash; -1 for the others."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(order[rows], kind="stable")][:most]
    places = np.full(len(order), -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return places


def _hashes(table: pa.Table) -> np.ndarray:
    """Return a 64-bit hash of each row, the same on every machine."""
    frame = table.to_pandas()
    hashed: np.ndarray = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashed


def _comparable(table: pa.Table) -> pa.Table:
    """Return a column in a form whose hash depends on neither its type nor the nulls beside a value."""
    (column,) = table.columns
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.string())
    elif pa.types.is_floating(column.type):
        column = pc.cast(column, pa.float64())
        whole = pc.cast(column, pa.int64(), safe=False)  # 3.0 as 3, as in a column of whole numbers
        is_whole = pc.equal(pc.cast(whole, pa.float64(), safe=False), column)
        column = pc.if_else(is_whole, pc.cast(whole, pa.string()), pc.cast(column, pa.string()))
    return pa.table({"value": column})


def numbers_of(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return numeric columns as (N, len(names)) float64, null as NaN."""
    columns = [pc.cast(table.column(name), pa.float64(), safe=False).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0))
