"""Image features on disk: what `iqa embed` writes, for training and for scoring without images.

A feature cache is an output folder like any other (``iqa_core/tables/output.py``) whose part files have an
``embedding`` column: also the output of `iqa score --embeddings`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import (
    EMBEDDING,
    MANIFEST_FILE,
    MANIFEST_ROW,
    OWN_NAMES,
    STATUS,
    VIEW_LEVELS,
    VIEWS,
)
from iqa_core.errors import InputError, Status
from iqa_core.storage.folder import Folder
from iqa_core.tables.feature_source import FeatureBlock
from iqa_core.tables.manifest import Manifest
from iqa_core.tables.output import FINGERPRINT
from iqa_core.tables.parts import PartFiles
from iqa_core.tables.plan import PLAN, planned_manifest
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import is_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "FeatureCache",
    "feature_column",
    "features_of",
    "views_of",
]

#: Keys that the fingerprint of a cache shares with the fingerprints of everything made from it.
_TOWER = ("model", "weights", "quick_gelu", "preprocess", "resolution", "decode", "precision")


def feature_column(features: np.ndarray) -> pa.Array:
    """Return (N, D) features as a float16 list column, null where a row is not finite in it."""
    with np.errstate(over="ignore"):  # values beyond float16's range are missing, too
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


class FeatureCache:
    """The features of a manifest's images, opened for reading.

    Args:
        uri: Output folder of `iqa embed`.

    Attributes:
        folder: The folder.
        fingerprint: Of the run that made the features.
        schema: The columns of the part files.
        parts: The part files' names.

    Raises:
        InputError: If the folder holds no features, or can't be read.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.folder = Folder.given(uri, "features")
        self._parts = PartFiles(
            self.folder, f"--features {uri}", "restore it, or run `iqa embed` again"
        )
        self.parts = self._parts.names()
        if not self.parts or not self.folder.exists(FINGERPRINT) or not self.folder.exists(PLAN):
            raise InputError(
                f"--features {uri} holds no features: give the output folder of `iqa embed`"
            )
        self.fingerprint: dict[str, Any] = self.folder.read_object(FINGERPRINT)
        self.schema: pa.Schema = self._parts.schema(self.parts[0])
        if EMBEDDING not in self.schema.names:
            raise InputError(
                f"--features {uri} has no column {EMBEDDING}: make it with `iqa embed`, or with "
                "`iqa score --embeddings`"
            )
        kind = self.schema.field(EMBEDDING).type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise InputError(
                f"--features {uri} has a column {EMBEDDING} of type {kind}, which is not of `iqa embed`: "
                "give the output folder of `iqa embed`"
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
        """The manifest's columns that were kept."""
        return [name for name in self.further if not is_extra(self.schema.field(name))]

    @property
    def further(self) -> list[str]:
        """The kept columns, and those that the run computed from its rows, such as ``worst_pair``."""
        return [name for name in self.schema.names if name not in OWN_NAMES]

    @property
    def tower(self) -> dict[str, Any]:
        """The part of the fingerprint that determines the features of an image."""
        return {key: self.fingerprint.get(key) for key in _TOWER}

    @property
    def model(self) -> str:
        """The ``--model`` that the features were made by."""
        return str(self.fingerprint["model"])

    def tower_of(self, digest: str, quick_gelu: bool) -> dict[str, Any]:
        """Return :attr:`tower`: the cache knows its model itself."""
        return self.tower

    def check_model(self, digest: str, width: int) -> None:
        """Refuse a model with other weights, as :meth:`check_weights`."""
        self.check_weights(digest)

    def check_weights(self, digest: str) -> None:
        """Refuse weights other than those that the features were made by.

        Args:
            digest: SHA-256 (hex) of the model's weights as they are now.

        Raises:
            InputError: If they differ.
        """
        model, weights = self.fingerprint["model"], self.fingerprint["weights"]
        if digest != weights:
            raise InputError(
                f"--features {self._uri} was made by --model {model} with the weights {weights[:12]}, "
                f"but it now has {digest[:12]}: run `iqa embed` again"
            )

    def manifest(self) -> Manifest:
        """Return the manifest that the features were made from, as its plan remembers it."""
        return planned_manifest(self.folder, self.schema)

    def failed_rows(self) -> RowSet | None:
        """Return the rows without features; None if the features are not complete.

        Reads statuses only of the part files whose footers tell of such rows.

        Raises:
            InputError: If a part file can't be read.
        """
        there, failed = RowSet(), RowSet()
        for name in self.parts:
            content = self._parts.content(name)
            there.update(content.rows)
            if content.statuses.get(Status.OK, 0) == len(content.rows):
                continue
            for table in self._parts.tables([MANIFEST_FILE, MANIFEST_ROW, STATUS], [name]):
                failed.add(table.filter(pc.not_equal(table.column(STATUS), Status.OK.value)))
        return failed if len(there) == self.manifest().rows else None

    def tables(
        self, columns: Sequence[str] | None = None, done: RowSet | None = None
    ) -> Iterator[pa.Table]:
        """Read the rows, one row group at a time.

        Args:
            columns: What to read; None reads everything.
            done: Rows to leave out.

        Yields:
            Tables with the identity columns and the wanted ones.

        Raises:
            InputError: If a part file can't be read.
        """
        wanted = None if columns is None else [MANIFEST_FILE, MANIFEST_ROW, *columns]
        for table in self._parts.tables(wanted, self.parts):
            yield table if done is None else table.filter(done.missing(table))

    def blocks(
        self, columns: Sequence[str], done: RowSet | None = None
    ) -> Iterator[Callable[[], FeatureBlock]]:
        """Yield functions that read the rows, each one row group; they may run in several threads.

        Args:
            columns: What to read beside identities and features.
            done: Rows to leave out.

        Raises:
            InputError: From this or from the functions, if a part file can't be read.
        """
        for name in self.parts:
            with self._parts.open(name) as part:
                groups = part.row_groups()
            for group in range(groups):
                yield partial(self._block, name, group, tuple(columns), done)

    def _block(
        self, name: str, group: int, columns: tuple[str, ...], done: RowSet | None
    ) -> FeatureBlock:
        wanted = [MANIFEST_FILE, MANIFEST_ROW, *columns]
        with self._parts.open(name) as part:
            features = part.read_lists(group, EMBEDDING)
            if features is not None:
                rows = part.read_group(group, wanted, use_threads=False)
                return FeatureBlock(rows, features).without(done)
            table = part.read_group(group, [*wanted, EMBEDDING], use_threads=False)
        block = FeatureBlock(table.drop_columns([EMBEDDING]), features_of(table))
        return block.without(done)
