"""The rows of a training on disk, memory-mapped by each worker.

Rows are ordered by a hash of their identity. So any contiguous shard is a random sample of the manifest,
the held-out rows are the same in every run, and neither depends on the order in which the cache's part
files were committed. The files are plain arrays of numbers; ``data.json`` is written last and makes them
complete.
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

__all__ = ["ARRAY_TYPES", "COLUMN", "DATA", "FILES", "TRAIN_ARRAYS", "Rows", "TrainingData"]

DATA = "data.json"
#: What a teacher that is a column of the manifest starts with.
COLUMN = "column:"
#: The arrays of the held-out rows; those of the rows to train on are :data:`TRAIN_ARRAYS`.
ARRAY_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "features": np.float16,
        "targets": np.float64,
        "fixed_scores": np.float64,
        "watched": np.float64,
        "views": np.float16,
        "levels": np.int8,
    }
)
TRAIN_ARRAYS = ("features", "targets", "views", "levels")
#: Every file of a training's data.
FILES = (DATA, *(f"{part}.{kind}" for part in ("train", "held_out") for kind in ARRAY_TYPES))

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
        teacher: What the student is to agree with: ``ensemble``, ``per-pair`` or ``column:NAME``.
        watched: Names of columns whose agreement is only reported.
        views: V, the degraded copies of each row, whose order is known; 0 if there are none.
        trust: P weights in [0, 1] of the teacher's order: how often it agrees with the known order of
            the views; 1 where there are no views, or the teacher is a column.
    """

    folder: str
    rows: int
    held_out_rows: int
    unused: int
    width: int
    pairs: int
    teacher: str
    watched: tuple[str, ...]
    views: int = 0
    trust: tuple[float, ...] = ()

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
        tuples = {name: tuple(document[name]) for name in ("watched", "trust")}
        return cls(**{**document, **tuples, "folder": folder})

    def shard(self, rank: int, size: int) -> Rows:
        """Map one worker's rows.

        Args:
            rank: The worker's number, from 0.
            size: The number of workers.
        """
        return self._rows("train", rank * self.rows // size, (rank + 1) * self.rows // size)

    def held_out(self) -> Rows:
        """Map the held-out rows."""
        return self._rows("held_out", 0, self.held_out_rows)

    def held_out_references(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n,) scores by the fixed base prompts, and the (n, W) watched columns."""
        rows = (0, self.held_out_rows)
        fixed = self._map("held_out", "fixed_scores", *rows)[:, 0]
        return fixed, self._map("held_out", "watched", *rows)

    def columns(self, kind: str) -> int:
        """Return the number of columns of one of :data:`ARRAY_TYPES`."""
        return {
            "features": self.width,
            "targets": self.pairs if self.per_pair else 1,
            "fixed_scores": 1,
            "watched": len(self.watched),
            "views": self.views * self.width,
            "levels": self.views,
        }[kind]

    def _rows(self, part: str, start: int, stop: int) -> Rows:
        return Rows(*(self._map(part, kind, start, stop) for kind in TRAIN_ARRAYS))

    def _map(self, part: str, kind: str, start: int, stop: int) -> np.ndarray:
        columns = self.columns(kind)
        dtype = np.dtype(ARRAY_TYPES[kind])
        shape, offset = (stop - start, columns), start * columns * dtype.itemsize
        if 0 in shape:
            return np.empty(shape, dtype)
        folder, name = Folder.of(self.folder), f"{part}.{kind}"
        if folder.is_local:
            return np.memmap(folder.path(name), dtype, "r", offset, shape)
        with tempfile.TemporaryFile() as file:  # on this worker's own disk, removed with the map
            end = offset + shape[0] * columns * dtype.itemsize
            for at in range(offset, end, _COPY_BYTES):
                path = folder.path(name)
                file.write(folder.fs.cat_file(path, start=at, end=min(end, at + _COPY_BYTES)))
            file.flush()
            return np.memmap(file, dtype, "r", 0, shape)
