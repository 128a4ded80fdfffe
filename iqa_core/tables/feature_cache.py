"""Image features on disk: what `iqa embed` writes, for training and for scoring without images.

A feature cache is an output folder like any other (``iqa_core/tables/output.py``) whose part files have an
``embedding`` column: also the output of `iqa score --embeddings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.columns import IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, URI
from iqa_core.errors import InputError
from iqa_core.scoring.margins import score_features
from iqa_core.storage.folder import Folder
from iqa_core.tables.manifest import Manifest, ManifestFile
from iqa_core.tables.output import FINGERPRINT, PARTS, PLAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.rows import RowSet

__all__ = [
    "EMBEDDING",
    "VIEWS",
    "VIEW_LEVELS",
    "FeatureCache",
    "feature_column",
    "features_of",
    "score_columns",
    "views_of",
]

EMBEDDING = "embedding"
#: Features of degraded copies (V x D, flat), and how strongly each was degraded (V).
VIEWS = "views"
VIEW_LEVELS = "view_levels"
_OWN = {MANIFEST_FILE, MANIFEST_ROW, IMAGE_ID, URI, "status", "error", "score", "scores"}
_OWN |= {"margins", "width", "height", EMBEDDING, VIEWS, VIEW_LEVELS}
#: Towers of one cache and of what is done with it must agree in these parts of the fingerprint.
_TOWER = ("model", "weights", "quick_gelu", "preprocess", "resolution", "decode", "precision")


def feature_column(features: np.ndarray) -> pa.Array:
    """Return (N, D) features as a float16 list column, null where a row is not finite in it."""
    with np.errstate(over="ignore"):  # what float16 can't hold is missing, too
        stored = features.astype(np.float16)
    missing = ~np.isfinite(stored).all(axis=1)
    flat = pa.array(stored.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, features.shape[1], mask=pa.array(missing))


def features_of(table: pa.Table, name: str = EMBEDDING) -> np.ndarray:
    """Return the features of a table's rows, (N, D) float32, NaN where there are none."""
    column = table.column(name).combine_chunks()
    width = column.type.list_size
    features = np.full((len(column), width), np.nan, dtype=np.float32)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    features[valid] = column.drop_null().flatten().to_numpy().reshape(-1, width)
    return features


def views_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of degraded copies, (N, V, D) float32, and their levels, (N, V) int8.

    Where a row has none, features are NaN and levels 0.
    """
    levels_type = table.column(VIEW_LEVELS).type
    flat = features_of(table, VIEWS).reshape(len(table), levels_type.list_size, -1)
    column = table.column(VIEW_LEVELS).combine_chunks()
    levels = np.zeros((len(table), levels_type.list_size), dtype=np.int8)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    levels[valid] = column.drop_null().flatten().to_numpy().reshape(-1, levels_type.list_size)
    return flat, levels


def score_columns(features: np.ndarray, prompts: PromptFeatures) -> dict[str, pa.Array]:
    """Score features by prompts.

    Args:
        features: (N, D), not finite where an image failed.
        prompts: P pairs of width D.

    Returns:
        The columns ``score``, ``scores`` and ``margins`` of the output, null where an image failed
        or its features or scores are not finite (:func:`iqa_core.scoring.margins.score_features`).
    """
    margin, scores, score = score_features(features, prompts)
    missing = np.isnan(score)
    columns = {"score": pa.array(score, pa.float32(), mask=missing)}
    for column, values in (("scores", scores), ("margins", margin)):
        each = [pa.array(values[:, place]) for place in range(len(prompts.names))]
        columns[column] = pa.StructArray.from_arrays(
            each, names=list(prompts.names), mask=pa.array(missing)
        )
    return columns


class FeatureCache:
    """The features of a manifest's images, opened for reading.

    Args:
        uri: Output folder of `iqa embed`.

    Attributes:
        folder: The folder.
        fingerprint: What the features were made by.
        schema: The columns of the part files.
        parts: The part files' names.

    Raises:
        InputError: If the folder holds no features.
    """

    def __init__(self, uri: str) -> None:
        self.folder = Folder.of(uri)
        self.parts = self.folder.list(PARTS)
        if not self.parts or not self.folder.exists(FINGERPRINT) or not self.folder.exists(PLAN):
            raise InputError(
                f"--features {uri} holds no features: give the output folder of `iqa embed`"
            )
        self.fingerprint: dict[str, Any] = self.folder.read_json(FINGERPRINT)
        with self.folder.fs.open(self.folder.path(self.parts[0]), "rb") as file:
            self.schema: pa.Schema = pq.read_schema(file).remove_metadata()
        if EMBEDDING not in self.schema.names:
            raise InputError(
                f"--features {uri} has no column {EMBEDDING}: make it with `iqa embed`, or with "
                "`iqa score --embeddings`"
            )

    @property
    def width(self) -> int:
        """Width D of the features."""
        return int(self.schema.field(EMBEDDING).type.list_size)

    @property
    def views(self) -> int:
        """Number V of degraded copies of each image."""
        if VIEWS not in self.schema.names:
            return 0
        return int(self.schema.field(VIEW_LEVELS).type.list_size)

    @property
    def kept(self) -> list[str]:
        """The manifest's columns that were carried along."""
        return [name for name in self.schema.names if name not in _OWN]

    @property
    def tower(self) -> dict[str, Any]:
        """The part of the fingerprint that says how images became features."""
        return {key: self.fingerprint.get(key) for key in _TOWER}

    def manifest(self) -> Manifest:
        """Return the manifest that the features were made from, as its plan remembers it."""
        plan = self.folder.read_json(PLAN)
        files = tuple(
            ManifestFile(file["name"], file["size"], tuple(file["row_groups"]), file.get("digest"))
            for file in plan["files"]
        )
        return Manifest(plan["manifest"], self.folder, files, self.schema)

    def tables(
        self, columns: Sequence[str] | None = None, done: RowSet | None = None
    ) -> Iterator[pa.Table]:
        """Read the rows, one row group at a time.

        Args:
            columns: What to read; None reads everything.
            done: Rows to leave out.

        Yields:
            Tables with the identity columns and the wanted ones.
        """
        wanted = None if columns is None else [MANIFEST_FILE, MANIFEST_ROW, *columns]
        for name in self.parts:
            with self.folder.fs.open(self.folder.path(name), "rb") as handle:
                file = pq.ParquetFile(handle)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=wanted)
                    yield table if done is None else table.filter(done.missing(table))
