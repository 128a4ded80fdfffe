"""The images of benchmarks/prompt_learning.py: made, labelled and encoded once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import piq
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.fresh_photos import fresh_photos
from iqa_core.clip.encoder import Towers
from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING, VIEW_LEVELS, VIEWS
from iqa_core.images.decode import prepare_image
from iqa_core.images.degrade import degraded_views
from iqa_core.tables.feature_cache import FeatureCache, feature_column, features_of
from tools.distortions import KINDS, LEVELS, apply
from tools.tiny.photos import find_photos, load_photo
from tools.tiny.render import full_reference

__all__ = ["Images", "prepare", "train_caches"]

_CROPS, _CLEAN, _VIEWS = 900, 300, 4
_TEST_LEVELS = (1, 3, 5)
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Images:
    """The test images: (N, D) features, and for each its labels, photograph and kind of distortion."""

    features: np.ndarray
    haarpsi: np.ndarray
    mdsi: np.ndarray
    photo: np.ndarray
    kind: np.ndarray

    def labelled(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return features and HaarPSI of the training crops."""
        table = pa.concat_tables(train_caches(folder)[0].tables())
        return features_of(table), table.column("reference").to_numpy()


def train_caches(folder: Path) -> tuple[FeatureCache, FeatureCache]:
    """Return the caches of crops and of clean crops."""
    return FeatureCache(str(folder / "crops")), FeatureCache(str(folder / "clean"))


def prepare(photos: Path, fresh: Path, folder: Path) -> Images:
    """Make what is missing below a folder; return the test images."""
    folder.mkdir(parents=True, exist_ok=True)
    towers = load_towers("tiny")
    for name, count in (("crops", _CROPS), ("clean", _CLEAN)):
        if not (folder / name / "_run" / "plan.json").exists():
            _write_cache(folder / name, towers, photos, count, distorted=name == "crops")
    path = folder / "test.npz"
    if not path.exists():
        made = _test_images(fresh, towers)
        np.savez(path.with_suffix(".tmp.npz"), **made)
        path.with_suffix(".tmp.npz").rename(path)
    with np.load(path) as stored:
        return Images(**stored)


def _test_images(fresh: Path, towers: Towers) -> dict[str, np.ndarray]:
    pixels, haarpsi, mdsi, photo, kinds = [], [], [], [], []
    for name, clean in fresh_photos(fresh).items():
        images = [("none", clean)]
        images += [(kind, apply(clean, kind, level)) for kind in KINDS for level in _TEST_LEVELS]
        for kind, image in images:
            pixels.append(prepare_image(Image.fromarray(image), towers.preprocess).pixels)
            haarpsi.append(full_reference(image, clean))
            mdsi.append(_mdsi(image, clean))
            photo.append(name)
            kinds.append(kind)
    return {
        "features": _encode(towers, pixels),
        "haarpsi": np.array(haarpsi),
        "mdsi": np.array(mdsi),
        "photo": np.array(photo),
        "kind": np.array(kinds),
    }


def _mdsi(image: np.ndarray, clean: np.ndarray) -> float:
    """Minus the mean deviation similarity index: 0 is identical, lower is worse."""
    pair = [torch.from_numpy(a.copy()).permute(2, 0, 1)[None].float() / 255 for a in (image, clean)]
    with torch.inference_mode():
        return -float(piq.mdsi(pair[0], pair[1], data_range=1.0))


def _write_cache(
    folder: Path, towers: Towers, photos: Path, count: int, *, distorted: bool
) -> None:
    """Write crops with degraded copies as `iqa embed --views 4 --keep reference photo` does."""
    rng = np.random.default_rng(0 if distorted else 1)
    found = find_photos(photos)
    pixels, levels, references, names = [], [], [], []
    for number in range(count):
        source = found[number % len(found)]
        photo = load_photo(source)
        side = int(rng.integers(240, min(480, *photo.shape[:2]) + 1))
        top, left = (int(rng.integers(edge - side + 1)) for edge in photo.shape[:2])
        image = clean = np.ascontiguousarray(photo[top : top + side, left : left + side])
        if distorted and number % 3:
            image = apply(clean, str(rng.choice(KINDS)), int(rng.choice(LEVELS)), seed=number)
        references.append(full_reference(image, clean) if distorted and number % 3 else 1.0)
        names.append(source.name)
        seen = prepare_image(Image.fromarray(image), towers.preprocess).pixels
        views, strengths = degraded_views(seen, _VIEWS, f"{folder.name}:{number}")
        pixels += [seen, *views]
        levels.append(strengths)
    features = _encode(towers, pixels).reshape(count, 1 + _VIEWS, -1)
    table = pa.table(
        {
            "manifest_file": [f"{folder.name}.parquet"] * count,
            "manifest_row": pa.array(range(count), pa.int64()),
            "status": ["ok"] * count,
            EMBEDDING: feature_column(features[:, 0]),
            VIEWS: feature_column(features[:, 1:].reshape(count, -1)),
            VIEW_LEVELS: pa.array(levels, pa.list_(pa.int8(), _VIEWS)),
            "reference": references,
            "photo": names,
        }
    )
    (folder / "_run").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "part-000.parquet", row_group_size=300)
    (folder / "_run" / "fingerprint.json").write_text(json.dumps({"model": "tiny"}))
    (folder / "_run" / "plan.json").write_text("{}")


def _encode(towers: Towers, pixels: list[np.ndarray]) -> np.ndarray:
    parts = [
        towers.image.encode(np.stack(pixels[start : start + _BATCH])).numpy()
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts)
