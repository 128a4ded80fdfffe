"""Writing the rows of a feature cache, and the bases, as a training reads them."""

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
from iqa_core.training.data import DATA, PARTS, Bases
from iqa_core.training.split import MAX_BASES, Places, numbers_of
from iqa_core.training.trust import ensemble_scores, measure_trust

if TYPE_CHECKING:
    import pyarrow as pa

    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.feature_cache import FeatureCache
    from iqa_core.training.data import TrainingData
    from iqa_core.training.split import DataPlan

__all__ = ["write_training_data"]

#: Held-out images whose copies are compared.
_HELD_OUT_BASES = 512
#: The share of the rows with the highest scores that are taken for clean.
_BEST = 0.1
#: Cosine from which two rows are taken for the same photograph, encoded or resized once more.
_NEAR_DUPLICATE = 0.9995
_CHUNK = 8192

#: Part -> array -> its rows.
_Arrays = dict[str, dict[str, np.ndarray]]


def write_training_data(
    cache: FeatureCache,
    plan: DataPlan,
    folder: str,
    prompts: PromptFeatures,
    judge: PromptFeatures | None = None,
) -> TrainingData:
    """Write the rows of a feature cache, and the bases, as a training reads them.

    Memory is that of the rows that are used, whose number is bounded.

    Args:
        cache: The features.
        plan: Which row goes where.
        folder: Path or URI of the folder to write to.
        prompts: Features of the fixed base prompts, the teacher.
        judge: Features of prompts whose scores say which images are the best, where these are taken for
            clean; None takes the base prompts.

    Returns:
        The rows.

    Raises:
        InputError: If a row of status ok has no finite features.
    """
    arrays, scores = _read_rows(plan, prompts, judge or prompts)
    data = _drop_near_duplicates(plan.data, arrays)
    if data.views:
        places = plan.clean or _base_places(plan, scores)
        data = _read_bases(places, data, arrays)
        data = _drop_near_bases(data, arrays)
    weights = np.ones(data.pairs)
    if data.bases and data.teacher_column is None and plan.weighs_teacher:
        bases = _bases_of(arrays["bases"], data.width)
        weights, ensemble = measure_trust(bases, prompts, within=data.within)
        each = weights if data.per_pair else np.full(data.pairs, ensemble)
        data = replace(data, trust=tuple(each.tolist()), pair_trust=tuple(weights.tolist()))
    if data.teacher_column is None:
        for part in ("train", "held_out"):
            arrays[part]["targets"] = _targets(
                arrays[part]["features"], prompts, weights, per_pair=data.per_pair
            )
    _write(arrays, data, folder)
    return replace(data, folder=folder)


def _write(arrays: _Arrays, data: TrainingData, folder: str) -> None:
    target = Folder.of(folder)
    with ExitStack() as stack:
        if target.is_local:
            local = Path(target.root)
            local.mkdir(parents=True, exist_ok=True)
        else:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for part, types in PARTS.items():
            for name, dtype in types.items():
                values = arrays.get(part, {}).get(name)
                if values is not None and values.size:
                    values.astype(dtype, copy=False).tofile(local / f"{part}.{name}")
        if not target.is_local:
            for path in sorted(local.iterdir()):
                target.fs.put_file(str(path), target.path(path.name))
    document = asdict(data)
    del document["folder"]
    target.write_json(DATA, document)


def _read_rows(
    plan: DataPlan, prompts: PromptFeatures, judge: PromptFeatures
) -> tuple[_Arrays, np.ndarray]:
    """Read features, column targets and references; return them, and all rows' scores by the judge."""
    data, places = plan.data, plan.rows
    column = data.teacher_column
    kept = sorted({*data.watched, *([column] if column else [])})
    arrays: _Arrays = {"train": {}, "held_out": {}}
    for part, count in (("train", data.rows), ("held_out", data.held_out_rows)):
        arrays[part]["features"] = np.zeros((count, data.width), np.float16)
        arrays[part]["targets"] = np.zeros((count, 1))
    held_out = arrays["held_out"]
    held_out["fixed_scores"] = np.zeros((data.held_out_rows, 1))
    held_out["watched"] = np.zeros((data.held_out_rows, len(data.watched)))
    chosen = np.flatnonzero(places.held_out >= 0)
    chosen = chosen[np.argsort(places.held_out[chosen])]
    held_out["places"], held_out["groups"] = chosen[:, None], places.groups[chosen, None]
    scores = np.full(len(places.train), np.nan)
    start = 0
    for table in places.cache.tables([EMBEDDING, *kept]):
        rows = slice(start, start + len(table))
        start += len(table)
        features = features_of(table)
        used = (places.train[rows] >= 0) | (places.held_out[rows] >= 0)
        _check_features(places.cache, table, used, features)
        fixed = _scores(features, used, prompts)
        scores[rows] = fixed if judge is prompts else _scores(features, used, judge)
        values: dict[str, np.ndarray] = {"features": features, "fixed_scores": fixed[:, None]}
        values["watched"] = numbers_of(table, data.watched)
        if column:
            sign = -1 if plan.lower_is_better else 1
            values["targets"] = sign * numbers_of(table, [column])
        for part, place in (("train", places.train[rows]), ("held_out", places.held_out[rows])):
            there = place >= 0
            for name in values.keys() & arrays[part].keys():
                arrays[part][name][place[there]] = values[name][there]
    return arrays, scores


def _scores(features: np.ndarray, used: np.ndarray, prompts: PromptFeatures) -> np.ndarray:
    """Return image scores, (n,) float64, NaN for rows that are not used."""
    scores = np.full(len(features), np.nan)
    if used.any():
        margin = torch.from_numpy(margins(features[used], prompts))
        scores[used] = image_scores_f64(margin)[:, 0].numpy()
    return scores


def _drop_near_duplicates(data: TrainingData, arrays: _Arrays) -> TrainingData:
    """Leave out rows to train on that are nearly equal to a held-out one."""
    count = _drop_near(arrays["train"], arrays["held_out"]["features"])
    return replace(data, rows=data.rows - count, near_duplicates=count)


def _drop_near_bases(data: TrainingData, arrays: _Arrays) -> TrainingData:
    """Leave out images with copies that are nearly equal to one whose copies are the evidence."""
    if not data.held_out_bases:
        return data
    count = _drop_near(arrays["bases"], arrays["held_out_bases"]["features"])
    return replace(data, bases=data.bases - count)


def _drop_near(part: dict[str, np.ndarray], held_out: np.ndarray) -> int:
    """Remove rows that are nearly equal to a held-out one, unless all are; return how many."""
    features = part["features"]
    others = torch.from_numpy(held_out.astype(np.float32).T.copy())
    near = np.zeros(len(features), dtype=bool)
    for start in range(0, len(features), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similar = torch.from_numpy(features[rows].astype(np.float32)) @ others
        near[rows] = (similar.amax(dim=1) >= _NEAR_DUPLICATE).numpy()
    if near.all():  # all images are alike, as in a test
        return 0
    for name in part:
        part[name] = part[name][~near]
    return int(near.sum())


def _base_places(plan: DataPlan, scores: np.ndarray) -> Places:
    """Choose the rows whose copies are compared: all, or the best tenth by the fixed prompts."""
    rows = plan.rows
    if plan.data.clean == "own":
        first = np.where(rows.train < MAX_BASES, rows.train, -1)
        return Places(rows.cache, first, rows.held_out, rows.groups)
    used = (rows.train >= 0) | (rows.held_out >= 0)
    best = used & (scores >= np.quantile(scores[rows.train >= 0], 1 - _BEST))
    chosen = []
    for place in (rows.train, rows.held_out):
        numbers = np.flatnonzero(best & (place >= 0))
        numbers = numbers[np.argsort(place[numbers])][:MAX_BASES]
        places = np.full(len(place), -1, dtype=np.int64)
        places[numbers] = np.arange(len(numbers))
        chosen.append(places)
    return Places(rows.cache, chosen[0], chosen[1], rows.groups)


def _read_bases(places: Places, data: TrainingData, arrays: _Arrays) -> TrainingData:
    """Read images with their copies."""
    held_out = np.where(places.held_out < _HELD_OUT_BASES, places.held_out, -1)
    counts = {"bases": places.train, "held_out_bases": held_out}
    for part, place in counts.items():
        count = int((place >= 0).sum())
        arrays[part] = {
            "features": np.zeros((count, data.width), np.float16),
            "views": np.zeros((count, data.views * data.width), np.float16),
            "levels": np.zeros((count, data.views), np.int8),
        }
    groups = np.zeros((len(arrays["held_out_bases"]["levels"]), 1), np.int64)
    groups[held_out[held_out >= 0], 0] = places.groups[held_out >= 0]
    arrays["held_out_bases"]["groups"] = groups
    start = 0
    for table in places.cache.tables([EMBEDDING, VIEWS, VIEW_LEVELS]):
        rows = slice(start, start + len(table))
        start += len(table)
        used = (places.train[rows] >= 0) | (held_out[rows] >= 0)
        if not used.any():
            continue
        features, (views, levels) = features_of(table), views_of(table)
        copies = views.reshape(len(table), -1)
        _check_features(places.cache, table, used, features, copies)
        for part, all_places in counts.items():
            place = all_places[rows]
            there = place >= 0
            for name, values in (("features", features), ("views", copies), ("levels", levels)):
                arrays[part][name][place[there]] = values[there]
    return replace(
        data,
        bases=len(arrays["bases"]["levels"]),
        held_out_bases=len(arrays["held_out_bases"]["levels"]),
    )


def _bases_of(part: dict[str, np.ndarray], width: int) -> Bases:
    count = len(part["levels"])
    whole = np.concatenate([part["features"], part["views"]], axis=1).reshape(count, -1, width)
    zero = np.zeros((count, 1), np.int8)
    return Bases(whole, np.concatenate([zero, part["levels"]], axis=1))


def _targets(
    features: np.ndarray, prompts: PromptFeatures, weights: np.ndarray, *, per_pair: bool
) -> np.ndarray:
    """Return the teacher's scores, (n, P) or (n, 1) float64."""
    parts = []
    for start in range(0, len(features), _CHUNK):
        rows = features[start : start + _CHUNK].astype(np.float32)
        margin = torch.from_numpy(margins(rows, prompts))
        found = pair_scores_f64(margin) if per_pair else ensemble_scores(margin, weights)
        parts.append(found.numpy())
    return np.concatenate(parts)


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
