"""The rows of a training on disk, memory-mapped by each worker.

Rows are ordered by a hash of their identity, so the first ones are a random sample of the manifest, the
held-out rows are the same in every run, and neither depends on the order in which the cache's part
files were committed. Beside the rows there are bases: images with degraded copies, whose order is known.
The files are plain arrays of numbers; ``data.json`` is written last and makes them complete.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iqa_core.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLUMN", "DATA", "FILES", "PARTS", "Bases", "Rows", "TrainingData"]

DATA = "data.json"
#: What a teacher that is a column of the manifest starts with.
COLUMN = "column:"
#: Part of the data -> its arrays and their types; an array's file is ``PART.ARRAY``.
PARTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "train": {"features": np.float16, "targets": np.float64},
        "held_out": {
            "features": np.float16,
            "targets": np.float64,
            "fixed_scores": np.float64,
            "watched": np.float64,
            "groups": np.int64,
            "places": np.int64,
        },
        "bases": {"features": np.float16, "views": np.float16, "levels": np.int8},
        "held_out_bases": {
            "features": np.float16,
            "views": np.float16,
            "levels": np.int8,
            "groups": np.int64,
        },
    }
)
#: Every file of a training's data.
FILES = (DATA, *(f"{part}.{array}" for part, arrays in PARTS.items() for array in arrays))

_COPY_BYTES = 16 * 1024 * 1024


class Rows(NamedTuple):
    """Rows as read-only memory maps.

    Attributes:
        features: (n, D) float16.
        targets: (n, P) or (n, 1) float64, higher is better.
    """

    features: np.ndarray
    targets: np.ndarray


class Bases(NamedTuple):
    """Images with degraded copies, as read-only memory maps.

    Attributes:
        features: (n, 1 + V, D) float16, of the image and of its copies.
        levels: (n, 1 + V) int8, how strongly they were degraded; 0 is the image.
    """

    features: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and rows to measure on, and bases for both.

    Attributes:
        folder: Path or URI of the folder that holds them.
        rows: N, the rows to train on.
        held_out_rows: The rows to measure on.
        unused: Rows of the cache without features or without a target.
        width: D, of the features.
        pairs: P, the base prompt pairs.
        teacher: What the student is to agree with: ``ensemble``, ``per-pair`` or ``column:NAME``.
        watched: Names of columns whose agreement is only reported.
        views: V, the degraded copies of each base; 0 if there are none.
        bases: Images with copies to train on.
        held_out_bases: Images with copies to measure on.
        clean: Where the bases come from: ``given``, a cache of images known to be good; ``best``, the
            rows with the highest scores; ``own``, all rows.
        trust: P weights in [0, 1] of the teacher's order: how often it agrees with the known order of
            the copies; empty, as good as 1, where it was not measured: there are no copies, their order
            is not used, or the teacher is a column.
        pair_trust: P weights in [0, 1] of the pairs' own orders, likewise; empty where they were not
            measured.
        near_duplicates: Rows that are not trained on, as a held-out row is nearly equal.
    """

    folder: str
    rows: int
    held_out_rows: int
    unused: int
    width: int
    pairs: int
    teacher: str
    watched: tuple[str, ...] = ()
    views: int = 0
    bases: int = 0
    held_out_bases: int = 0
    clean: str = "own"
    trust: tuple[float, ...] = ()
    pair_trust: tuple[float, ...] = ()
    near_duplicates: int = 0

    @property
    def per_pair(self) -> bool:
        """Whether each pair has a target of its own."""
        return self.teacher == "per-pair"

    @property
    def teacher_column(self) -> str | None:
        """The manifest's column that is the teacher, if it is one."""
        return self.teacher.removeprefix(COLUMN) if self.teacher.startswith(COLUMN) else None

    @classmethod
    def open(cls, folder: str) -> TrainingData:
        """Open what :func:`iqa_core.training.write.write_training_data` wrote."""
        document = Folder.of(folder).read_json(DATA)
        tuples = {name: tuple(document[name]) for name in ("watched", "trust", "pair_trust")}
        return cls(**{**document, **tuples, "folder": folder})

    @property
    def within(self) -> bool:
        """Whether only copies of one image are compared, as not all bases are clean."""
        return self.clean == "own"

    def train(self) -> Rows:
        """Map the rows to train on."""
        return Rows(*(self._map("train", array, self.rows) for array in ("features", "targets")))

    def held_out(self) -> Rows:
        """Map the held-out rows."""
        count = self.held_out_rows
        return Rows(*(self._map("held_out", array, count) for array in ("features", "targets")))

    def held_out_references(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n,) scores by the fixed base prompts, and the (n, W) watched columns."""
        fixed = self._map("held_out", "fixed_scores", self.held_out_rows)[:, 0]
        return fixed, self._map("held_out", "watched", self.held_out_rows)

    def held_out_groups(self) -> np.ndarray:
        """Return (n,) numbers of the held-out rows' contents: equal ones show the same."""
        return self._map("held_out", "groups", self.held_out_rows)[:, 0]

    def held_out_places(self) -> np.ndarray:
        """Return the held-out rows' places in the cache, in its order: (n,)."""
        return self._map("held_out", "places", self.held_out_rows)[:, 0]

    def train_bases(self) -> Bases:
        """Map the bases to train on."""
        return self._bases("bases", self.bases)

    def measured_bases(self) -> tuple[Bases, np.ndarray]:
        """Map the held-out bases, and (n,) numbers of their contents."""
        count = self.held_out_bases
        return self._bases("held_out_bases", count), self._map("held_out_bases", "groups", count)[
            :, 0
        ]

    def columns(self, array: str) -> int:
        """Return the number of columns of one of the arrays of :data:`PARTS`."""
        return {
            "features": self.width,
            "targets": self.pairs if self.per_pair else 1,
            "watched": len(self.watched),
            "views": self.views * self.width,
            "levels": self.views,
        }.get(array, 1)

    def _bases(self, part: str, count: int) -> Bases:
        images, views, levels = (
            self._map(part, array, count) for array in ("features", "views", "levels")
        )
        whole = np.concatenate([images, views], axis=1) if count else images
        zero = np.zeros((count, 1), np.int8)
        shape = (count, 1 + self.views if count else 1, self.width)
        return Bases(whole.reshape(shape), np.concatenate([zero, levels], axis=1))

    def _map(self, part: str, array: str, rows: int) -> np.ndarray:
        shape, dtype = (rows, self.columns(array)), np.dtype(PARTS[part][array])
        if 0 in shape:
            return np.empty(shape, dtype)
        folder, name = Folder.of(self.folder), f"{part}.{array}"
        if folder.is_local:
            return np.memmap(folder.path(name), dtype, "r", 0, shape)
        with tempfile.TemporaryFile() as file:  # on this worker's own disk, removed with the map
            end = shape[0] * shape[1] * dtype.itemsize
            for at in range(0, end, _COPY_BYTES):
                path = folder.path(name)
                file.write(folder.fs.cat_file(path, start=at, end=min(end, at + _COPY_BYTES)))
            file.flush()
            return np.memmap(file, dtype, "r", 0, shape)
