"""Writing the rows of a feature cache as a training reads them."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.columns import EMBEDDING, IDENTITY, VIEW_LEVELS, VIEWS
from iqa_core.errors import InputError
from iqa_core.scoring.margins import image_scores_f64, margins, pair_scores_f64
from iqa_core.storage.folder import Folder
from iqa_core.tables.feature_cache import features_of, views_of
from iqa_core.training.data import ARRAY_TYPES, DATA, TRAIN_ARRAYS
from iqa_core.training.split import numbers_of
from iqa_core.training.trust import ensemble_scores, measure_trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.feature_cache import FeatureCache
    from iqa_core.training.data import TrainingData
    from iqa_core.training.split import DataPlan

__all__ = ["write_training_data"]


def write_training_data(
    cache: FeatureCache, plan: DataPlan, folder: str, prompts: PromptFeatures
) -> TrainingData:
    """Write the rows of a feature cache as a training reads them.

    Memory does not grow with the features: only each row's hash and places are held.

    Args:
        cache: The features.
        plan: Which row goes where.
        folder: Path or URI of the folder to write to.
        prompts: Features of the fixed base prompts, the teacher.

    Returns:
        The rows.

    Raises:
        InputError: If a row of status ok has no finite features.
    """
    target = Folder.of(folder)
    weights = np.ones(plan.data.pairs)
    if plan.data.views and plan.data.teacher_column is None:
        weights, ensemble = measure_trust(cache, prompts)
        each = weights if plan.data.per_pair else np.full(plan.data.pairs, ensemble)
        plan = replace(plan, data=replace(plan.data, trust=tuple(each.tolist())))
    with ExitStack() as stack:
        if target.is_local:
            local = Path(target.root)
            local.mkdir(parents=True, exist_ok=True)
        else:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _write_arrays(cache, local, prompts, plan, weights)
        if not target.is_local:
            for path in sorted(local.iterdir()):
                target.fs.put_file(str(path), target.path(path.name))
    document = asdict(plan.data)
    del document["folder"]
    target.write_json(DATA, document)
    return replace(plan.data, folder=folder)


def _write_arrays(
    cache: FeatureCache,
    local: Path,
    prompts: PromptFeatures,
    plan: DataPlan,
    weights: np.ndarray,
) -> None:
    data = plan.data
    train = _create(local, "train", TRAIN_ARRAYS, data, data.rows)
    held_out = _create(local, "held_out", tuple(ARRAY_TYPES), data, data.held_out_rows)
    column = data.teacher_column
    kept = sorted({*data.watched, *([column] if column else [])})
    start = 0
    stored = [EMBEDDING, *((VIEWS, VIEW_LEVELS) if data.views else ())]
    for table in cache.tables([*stored, *kept]):
        train_place = plan.train_place[start : start + len(table)]
        held_out_place = plan.held_out_place[start : start + len(table)]
        start += len(table)
        features = features_of(table)
        copies, levels = views_of(table) if data.views else (features[:, :0], features[:, :0])
        views = copies.reshape(len(table), -1)
        used = (train_place >= 0) | (held_out_place >= 0)
        _check_features(cache, table, used, features, views)
        fixed = torch.from_numpy(margins(features, prompts))
        values = {
            "features": features,
            "fixed_scores": image_scores_f64(fixed).numpy(),
            "watched": numbers_of(table, data.watched),
            "views": views,
            "levels": levels,
        }
        if data.per_pair:
            values["targets"] = pair_scores_f64(fixed).numpy()
        elif column is None:
            values["targets"] = ensemble_scores(fixed, weights).numpy()
        else:
            values["targets"] = numbers_of(table, [column])
        for arrays, place, rows in (
            (train, train_place, data.rows),
            (held_out, held_out_place, data.held_out_rows),
        ):
            written = (place >= 0) & (place < rows)
            for name, array in arrays.items():
                array[place[written]] = values[name][written]
    for array in (*train.values(), *held_out.values()):
        if isinstance(array, np.memmap):
            array.flush()


def _check_features(
    cache: FeatureCache, table: pa.Table, used: np.ndarray, *features: np.ndarray
) -> None:
    """Refuse rows of status ok without finite features: they would end the training in NaN."""
    finite = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in features])
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
    """Create the files of one part, filled with zeros; an array without values has no file."""
    arrays: dict[str, np.ndarray] = {}
    for kind in kinds:
        shape: tuple[int, int] = (rows, data.columns(kind))
        path = local / f"{part}.{kind}"
        if 0 in shape:
            arrays[kind] = np.empty(shape)
        else:
            arrays[kind] = np.memmap(path, ARRAY_TYPES[kind], "w+", 0, shape)
    return arrays
