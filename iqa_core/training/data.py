"""The rows of a training: written once from a feature cache, then memory-mapped by each worker.

Rows stand in the order of a hash of their identity. So any contiguous shard is a random sample of
the manifest, the held-out rows are the same in every run, and neither depends on the order in which
the cache's part files were committed. The files are plain arrays of numbers; ``data.json`` is written
last and makes them complete.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from iqa_core.columns import IDENTITY
from iqa_core.errors import InputError, Status
from iqa_core.scoring.margins import image_scores_f64, margins, pair_scores_f64
from iqa_core.storage.folder import Folder
from iqa_core.tables.feature_cache import EMBEDDING, VIEW_LEVELS, VIEWS, features_of, views_of
from iqa_core.training.known_order import known_order_agreement, reliability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.feature_cache import FeatureCache

__all__ = [
    "DATA",
    "FILES",
    "MOST_HELD_OUT",
    "DataPlan",
    "Rows",
    "TrainingData",
    "check_target",
    "plan_training_data",
    "write_training_data",
]

DATA = "data.json"
_COLUMN = "column:"
_TYPES = {
    "features": np.float16,
    "targets": np.float64,
    "teacher": np.float64,
    "watched": np.float64,
    "views": np.float16,
    "levels": np.int8,
}
_TRAIN = ("features", "targets", "views", "levels")
#: Everything that :func:`write_training_data` writes.
FILES = (DATA, *(f"{part}.{kind}" for part in ("train", "held_out") for kind in _TYPES))

#: More held-out rows than these are not read: they would tell no more about the order.
MOST_HELD_OUT = 20_000
_LEAST_HELD_OUT = 8
#: Views from which the trust in a teacher is measured.
_TRUST_VIEWS = 4096
_COPY_BYTES = 16 * 1024 * 1024


class Rows(NamedTuple):
    """Rows as read-only memory maps.

    Attributes:
        features: (n, D) float16.
        targets: (n, P) or (n, 1) float64.
        views: (n, V D) float16, the features of degraded copies.
        levels: (n, V) int8, how strongly they were degraded.
    """

    features: np.ndarray
    targets: np.ndarray
    views: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and rows to measure agreement on.

    Attributes:
        folder: Path or URI of the folder that holds them.
        rows: N, the rows to train on.
        held_out_rows: The rows to measure on.
        unused: Rows of the cache without features or without a target.
        width: D, of the features.
        pairs: P, the base prompt pairs.
        target: What the student is to agree with: ``ensemble``, ``per-pair`` or ``column:NAME``.
        watched: Names of columns whose agreement is reported, and nothing else.
        views: V, the degraded copies of each row, whose order is known; 0 if there are none.
        trust: P weights in [0, 1] of the teacher's order: how often it agrees with the known order of
            the views; 1 where there are no views, or the target is a column.
    """

    folder: str
    rows: int
    held_out_rows: int
    unused: int
    width: int
    pairs: int
    target: str
    watched: tuple[str, ...]
    views: int = 0
    trust: tuple[float, ...] = ()

    @property
    def per_pair(self) -> bool:
        """Whether each pair has a target of its own."""
        return self.target == "per-pair"

    @classmethod
    def open(cls, folder: str) -> TrainingData:
        """Open what :func:`write_training_data` wrote."""
        document = Folder.of(folder).read_json(DATA)
        tuples = {name: tuple(document[name]) for name in ("watched", "trust")}
        return cls(**{**document, **tuples, "folder": folder})

    def shard(self, rank: int, size: int) -> Rows:
        """Map one worker's rows.

        Args:
            rank: Which worker.
            size: Of how many.
        """
        return self._rows("train", rank * self.rows // size, (rank + 1) * self.rows // size)

    def held_out(self) -> Rows:
        """Map the held-out rows."""
        return self._rows("held_out", 0, self.held_out_rows)

    def _rows(self, part: str, start: int, stop: int) -> Rows:
        return Rows(*(self._map(part, kind, start, stop) for kind in _TRAIN))

    def held_out_references(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n,) scores by the fixed base prompts, and the (n, W) watched columns."""
        rows = (0, self.held_out_rows)
        teacher = self._map("held_out", "teacher", *rows)[:, 0]
        return teacher, self._map("held_out", "watched", *rows)

    def _map(self, part: str, kind: str, start: int, stop: int) -> np.ndarray:
        columns = _columns(self, kind)
        dtype = np.dtype(_TYPES[kind])
        shape, offset = (stop - start, columns), start * columns * dtype.itemsize
        if 0 in shape:
            return np.empty(shape, dtype)
        folder, name = Folder.of(self.folder), f"{part}.{kind}"
        if folder.is_local:
            return np.memmap(folder.path(name), dtype, "r", offset, shape)
        with tempfile.TemporaryFile() as file:  # on this worker's own disk, gone with the map
            end = offset + shape[0] * columns * dtype.itemsize
            for at in range(offset, end, _COPY_BYTES):
                path = folder.path(name)
                file.write(folder.fs.cat_file(path, start=at, end=min(end, at + _COPY_BYTES)))
            file.flush()
            return np.memmap(file, dtype, "r", 0, shape)


def _columns(data: TrainingData, kind: str) -> int:
    return {
        "features": data.width,
        "targets": data.pairs if data.per_pair else 1,
        "teacher": 1,
        "watched": len(data.watched),
        "views": data.views * data.width,
        "levels": data.views,
    }[kind]


def check_target(cache: FeatureCache, target: str, watch: Sequence[str] = ()) -> None:
    """Refuse a target or a watched column that the cache can't give.

    Raises:
        InputError: If the target is none of ``ensemble``, ``per-pair``, ``column:NAME``, or a
            column is not there or not numeric.
    """
    if target not in ("ensemble", "per-pair") and not target.startswith(_COLUMN):
        raise InputError(f"--teacher {target!r} is none of ensemble, per-pair, column:NAME")
    named = [("--teacher", target.removeprefix(_COLUMN))] if target.startswith(_COLUMN) else []
    for option, name in [*named, *(("--watch", name) for name in watch)]:
        if name not in cache.kept:
            kept = ", ".join(cache.kept) or "none"
            raise InputError(
                f"{option} column {name!r} is not in the features, whose columns are: {kept}: run "
                f"`iqa embed` with --keep {name}"
            )
        kind = cache.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise InputError(f"{option} column {name!r} is of type {kind}, but must be numeric")


@dataclass(frozen=True, eq=False)
class DataPlan:
    """Which row of a cache goes where.

    Attributes:
        data: What will be written; its folder is empty.
        places: (rows,) int64 in the cache's order: a place among the training rows from 0 up,
            ``-2 - place`` among the held-out ones, -1 for neither.
    """

    data: TrainingData
    places: np.ndarray


def plan_training_data(
    cache: FeatureCache,
    pairs: int,
    *,
    target: str = "ensemble",
    holdout: float = 0.1,
    holdout_by: str | None = None,
    watch: Sequence[str] = (),
) -> DataPlan:
    """Decide which row of a feature cache goes where; nothing is written.

    Args:
        cache: The features.
        pairs: P, the number of base prompt pairs.
        target: ``ensemble``, ``per-pair`` or ``column:NAME``.
        holdout: Share of the rows to measure on, by a hash of the row's identity: a row's side
            depends neither on other rows nor on the seed.
        holdout_by: Column to hash instead: rows that share its value are on the same side.
        watch: Numeric columns to report agreement with.

    Raises:
        InputError: If a column is unusable or too few rows are held out.
    """
    check_target(cache, target, watch)
    if holdout_by is not None and holdout_by not in cache.kept:
        raise InputError(
            f"--holdout-by column {holdout_by!r} is not in the features, whose columns are: "
            f"{', '.join(cache.kept) or 'none'}: run `iqa embed` with --keep {holdout_by}"
        )
    places, counts = _places(cache, target, holdout, holdout_by)
    if counts[1] < _LEAST_HELD_OUT:
        raise InputError(
            f"--holdout {holdout:g} leaves {counts[1]} of {sum(counts):,} rows to measure agreement "
            f"on, but at least {_LEAST_HELD_OUT} are needed: raise it, or embed more images"
        )
    data = TrainingData(
        folder="",
        rows=counts[0],
        held_out_rows=min(counts[1], MOST_HELD_OUT),
        unused=len(places) - sum(counts),
        width=cache.width,
        pairs=pairs,
        target=target,
        watched=tuple(watch),
        views=cache.views,
        trust=(1.0,) * pairs,
    )
    return DataPlan(data, places)


def write_training_data(
    cache: FeatureCache, plan: DataPlan, folder: str, prompts: PromptFeatures
) -> TrainingData:
    """Write the rows of a feature cache as a training reads them.

    Memory does not grow with the features: what is held for each row is its hash and its place.

    Args:
        cache: The features.
        plan: Which row goes where.
        folder: Path or URI of the folder to write to.
        prompts: Features of the fixed base prompts, the teacher.

    Returns:
        The rows.
    """
    goal = Folder.of(folder)
    weights = np.ones(plan.data.pairs)
    if plan.data.views and not plan.data.target.startswith(_COLUMN):
        weights, ensemble = _trust(cache, prompts)
        each = weights if plan.data.per_pair else np.full(plan.data.pairs, ensemble)
        plan = replace(plan, data=replace(plan.data, trust=tuple(each.tolist())))
    with ExitStack() as stack:
        if goal.is_local:
            local = Path(goal.root)
            local.mkdir(parents=True, exist_ok=True)
        else:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _write_arrays(cache, local, prompts, plan, weights)
        if not goal.is_local:
            for path in sorted(local.iterdir()):
                goal.fs.put_file(str(path), goal.path(path.name))
    document = asdict(plan.data)
    del document["folder"]
    goal.write_json(DATA, document)
    return replace(plan.data, folder=folder)


def _trust(cache: FeatureCache, prompts: PromptFeatures) -> tuple[np.ndarray, float]:
    """Return how far each pair, and the ensemble weighed by that, is right about the known order."""
    values: list[torch.Tensor] = []
    levels: list[torch.Tensor] = []
    for table in cache.tables([EMBEDDING, VIEWS, VIEW_LEVELS]):
        images, (copies, strengths) = features_of(table), views_of(table)
        there = np.isfinite(images).all(axis=1)
        both = np.concatenate([images[there, None], copies[there]], axis=1)
        values.append(torch.from_numpy(margins(both.reshape(-1, cache.width), prompts)))
        zero = np.zeros((len(strengths), 1), dtype=np.int8)
        levels.append(torch.from_numpy(np.concatenate([zero, strengths], axis=1)[there].ravel()))
        if sum(map(len, values)) >= _TRUST_VIEWS:
            break
    margin, level = torch.cat(values)[:_TRUST_VIEWS], torch.cat(levels)[:_TRUST_VIEWS]
    weights = reliability(known_order_agreement(margin, level))
    scores = _ensemble(margin, weights.numpy())
    return weights.numpy(), float(reliability(known_order_agreement(scores, level))[0])


def _ensemble(margin: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """Return the mean of the pair scores, (N, 1), by their weights; plain if none is trusted."""
    if not weights.any() or (weights == weights[0]).all():
        return image_scores_f64(margin)
    each = pair_scores_f64(margin)
    return each @ torch.from_numpy(weights / weights.sum())[:, None]


def _places(
    cache: FeatureCache, target: str, holdout: float, holdout_by: str | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return :attr:`DataPlan.places`, and how many rows are for training and held out."""
    hashes, sides, usable = [], [], []
    columns = [target.removeprefix(_COLUMN)] if target.startswith(_COLUMN) else []
    columns += [holdout_by] if holdout_by and holdout_by not in columns else []
    for table in cache.tables(["status", *columns]):
        hashes.append(_hashes(table.select(list(IDENTITY))))
        sides.append(_hashes(table.select([holdout_by])) if holdout_by else hashes[-1])
        there = pc.equal(table.column("status"), Status.OK.value).to_numpy()
        if target.startswith(_COLUMN):
            there = there & np.isfinite(_floats(table, [target.removeprefix(_COLUMN)])[:, 0])
        usable.append(there)
    order, side = np.concatenate(hashes), np.concatenate(sides)
    there = np.concatenate(usable)
    out = there & (side < np.uint64(holdout * 2**64))
    places = np.full(len(order), -1, dtype=np.int64)
    for mask, encode in ((there & ~out, False), (out, True)):
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(order[rows], kind="stable")]
        number = np.arange(len(rows), dtype=np.int64)
        places[rows] = -2 - number if encode else number
    return places, (int((there & ~out).sum()), int(out.sum()))


def _hashes(table: pa.Table) -> np.ndarray:
    """Return a 64-bit hash of each row, the same on every machine."""
    frame = table.to_pandas()
    hashed: np.ndarray = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashed


def _floats(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return numeric columns as (N, len(names)) float64, null as NaN."""
    columns = [pc.cast(table.column(name), pa.float64(), safe=False).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0))


def _write_arrays(
    cache: FeatureCache,
    local: Path,
    prompts: PromptFeatures,
    plan: DataPlan,
    weights: np.ndarray,
) -> None:
    data = plan.data
    train = _create(local, "train", _TRAIN, data, data.rows)
    held_out = _create(local, "held_out", tuple(_TYPES), data, data.held_out_rows)
    column = data.target.removeprefix(_COLUMN) if data.target.startswith(_COLUMN) else None
    kept = sorted({*data.watched, *([column] if column else [])})
    start = 0
    stored = [EMBEDDING, *((VIEWS, VIEW_LEVELS) if data.views else ())]
    for table in cache.tables([*stored, *kept]):
        here = plan.places[start : start + len(table)]
        start += len(table)
        features = features_of(table)
        copies, levels = views_of(table) if data.views else (features[:, :0], features[:, :0])
        views = copies.reshape(len(table), -1)
        _check_features(cache, table, here != -1, features, views)
        teacher = torch.from_numpy(margins(features, prompts))
        values = {
            "features": features,
            "teacher": image_scores_f64(teacher).numpy(),
            "watched": _floats(table, data.watched),
        }
        values |= {"views": views, "levels": levels}
        if data.per_pair:
            values["targets"] = pair_scores_f64(teacher).numpy()
        elif column is None:
            values["targets"] = _ensemble(teacher, weights).numpy()
        else:
            values["targets"] = _floats(table, [column])
        for arrays, mask, at in (
            (train, here >= 0, here),
            (held_out, (here <= -2) & (-2 - here < data.held_out_rows), -2 - here),
        ):
            for name, array in arrays.items():
                array[at[mask]] = values[name][mask]
    for array in (*train.values(), *held_out.values()):
        if isinstance(array, np.memmap):
            array.flush()


def _check_features(
    cache: FeatureCache, table: pa.Table, used: np.ndarray, *features: np.ndarray
) -> None:
    """Refuse rows of status ok without finite features: they would end the training in NaN."""
    finite = np.logical_and.reduce([np.isfinite(one).all(axis=1) for one in features])
    wrong = np.flatnonzero(used & ~finite)
    if len(wrong):
        file, row = (table.column(name)[int(wrong[0])].as_py() for name in IDENTITY)
        raise InputError(
            f"--features {cache.folder.uri}: row {row} of {file} has the status ok, but no finite "
            "features: the folder was changed since, or was written by an older version; run "
            "`iqa embed` into another folder"
        )


def _create(
    local: Path, part: str, kinds: Sequence[str], data: TrainingData, rows: int
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for kind in kinds:
        shape: tuple[int, int] = (rows, _columns(data, kind))
        dtype: Any = _TYPES[kind]
        path = local / f"{part}.{kind}"
        arrays[kind] = np.memmap(path, dtype, "w+", 0, shape) if 0 not in shape else np.empty(shape)
    return arrays
