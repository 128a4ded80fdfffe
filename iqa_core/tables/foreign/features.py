"""Image features that another program made: arrays or list columns, and the identities of their rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqa_core.columns import Contents, fields
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import has_scheme
from iqa_core.tables.feature_source import FeatureBlock
from iqa_core.tables.foreign.arrays import ArrayFile
from iqa_core.tables.foreign.files import check_pairs, find_numbered, suffixes_in
from iqa_core.tables.foreign.identities import ArrayIdentities, MetadataIdentities
from iqa_core.tables.foreign.lists import ListFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.tables.foreign.identities import Identities
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.rows import RowSet

__all__ = ["ForeignFeatures", "kind_of_files", "open_foreign_rows", "unit_features"]

#: In this order: DataComp has .npz beside .parquet, and clip-retrieval .npy.
_SUFFIXES = (".npy", ".npz", ".parquet")
_BLOCK_BYTES = 2**24
#: How far the square of a length may be from 1, as for scoring.
_LENGTH_TOLERANCE = 0.02
#: A block of fewer usable rows says nothing of a whole file.
_FEWEST = 32


def unit_features(
    features: np.ndarray, *, normalise: bool, shown: str, fewest: int = _FEWEST
) -> np.ndarray:
    """Check that most rows have length 1, or give them that length.

    Args:
        features: (N, D) of any float type.
        normalise: Divide each row by its length instead.
        shown: Where they are from, for messages.
        fewest: Number of usable rows from which it is judged.

    Returns:
        The features as they are; with ``normalise`` float32 of length 1, NaN where a row has no length.

    Raises:
        InputError: If more than half of the rows that are finite and not zero have another length.
    """
    values = features.astype(np.float64 if features.dtype == np.float64 else np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        lengths: np.ndarray = np.linalg.norm(values, axis=1).astype(np.float64)
        usable = np.isfinite(lengths) & (lengths > 0)
        if normalise:
            lengths[~usable] = np.nan
            scaled: np.ndarray = (values / lengths[:, None]).astype(np.float32)
            return scaled
    off = usable & ~(np.abs(lengths**2 - 1) < _LENGTH_TOLERANCE)
    if usable.sum() >= fewest and off.sum() * 2 > usable.sum():
        raise InputError(
            f"{shown}: {off.sum():,} of {usable.sum():,} rows are not of length 1 (the median is "
            f"{np.median(lengths[usable]):.4g}): give --normalise if only that was left out"
        )
    return features


@dataclass(frozen=True)
class ForeignFeatures:
    """Features of another program, opened for reading. See :class:`FeatureSource` for its methods.

    Attributes:
        uri: ``--features``.
        model: ``--model``.
        vectors: The files of the features, in order.
        identities: The rows that they belong to.
        normalise: Whether rows are divided by their length.
    """

    uri: str
    model: str
    vectors: tuple[ArrayFile | ListFile, ...]
    identities: Identities
    normalise: bool = False

    @classmethod
    def open(
        cls,
        uri: str,
        model: str,
        *,
        column: str | None = None,
        metadata: str | None = None,
        uri_column: str | None = None,
        normalise: bool = False,
    ) -> ForeignFeatures:
        """Find the files and read their headers.

        Args:
            uri: A ``.npy``, ``.npz`` or Parquet file, a folder or a glob of them.
            model: The ``--model`` that made them.
            column: Column of Parquet files, or array of ``.npz`` files.
            metadata: Parquet files with a row for each feature, in the same order.
            uri_column: The column that names the images.
            normalise: Divide each row by its length.

        Raises:
            InputError: If something can't be read, or metadata have other rows than the features.
        """
        suffix = kind_of_files(uri)
        shown = f"--features {redact(uri)}"
        folder, names = find_numbered(uri, "features", suffix)
        vectors: tuple[ArrayFile | ListFile, ...]
        identities: Identities
        absolute = uri if has_scheme(uri) else str(Path(uri).absolute())
        lists: tuple[str, ...] = ()
        if suffix == ".npy" and column is not None:
            raise InputError(
                f"--features-column {column} has no effect on .npy files, which hold one array: leave "
                "it out"
            )
        if suffix == ".parquet":
            found = [ListFile.of(folder, name, column) for name in names]
            # A file that has no value at all, or no row, is as wide as the others.
            width = next((each.width for each in found if each.width), 0)
            vectors = tuple(replace(each, width=each.width or width) for each in found)
            lists = (found[0].column,)
        else:
            arrays = tuple(ArrayFile.of(folder, name, column) for name in names)
            vectors, identities = arrays, ArrayIdentities(absolute, folder, arrays)
        if metadata is not None or suffix == ".parquet":
            place = absolute if metadata is None else metadata
            place = place if has_scheme(place) else str(Path(place).absolute())
            option = "features" if metadata is None else "metadata"
            identities = MetadataIdentities.of(place, option, uri_column, lists)
        elif uri_column is not None:
            raise InputError(f"--uri-column {uri_column} is a column of --metadata: give that, too")
        shapes = [(vector.name, vector.shape[0]) for vector in vectors]
        check_pairs(shapes, [(file.name, file.rows) for file in identities.files], shown)
        return cls(uri, model, vectors, identities, normalise)

    @property
    def schema(self) -> pa.Schema:
        """The columns of :meth:`blocks`."""
        own = fields(Contents(self.manifest().image_id_type))
        return pa.schema([*own, *(self.identities.schema.field(name) for name in self.kept)])

    @property
    def kept(self) -> list[str]:
        """The metadata's plain columns, without those of names that outputs have themselves."""
        return self.identities.kept

    def manifest(self) -> Manifest:
        """Return the rows of the metadata, or of the arrays themselves."""
        return self.identities.manifest()

    def check_model(self, digest: str, width: int) -> None:
        """Refuse features of another width than the model's, or of other lengths than 1.

        Raises:
            InputError: If they are.
        """
        for vector in self.vectors:
            shown = f"--features {redact(vector.folder.path(vector.name))}"
            rows, found = vector.shape
            if found == width or (rows == 0 and isinstance(vector, ListFile)):
                continue
            if rows == width:
                raise InputError(
                    f"{shown} has the shape ({rows:,}, {found:,}), and --model {self.model} makes "
                    f"{width:,} "
                    "values for an image: the array is transposed; save its .T"
                )
            raise InputError(
                f"{shown} has {found:,} values in a row, but --model {self.model} makes {width:,}: "
                "name the "
                "model that made them"
            )
        first = next((vector for vector in self.vectors if vector.shape[0]), None)
        if first is not None:
            sample = first.slices().take(min(first.shape[0], self._block_rows()))()
            self._checked(sample, first.name, fewest=1)

    def tower_of(self, digest: str, quick_gelu: bool) -> dict[str, Any]:
        """Return the keys of a cache's fingerprint, and what is known of the features."""
        first = self.vectors[0]
        known: dict[str, Any] = {
            "first": first.name,
            "digest": first.digest(),
            "type": str(first.dtype),
        }
        known |= {"column": first.column}
        return {
            "model": self.model,
            "weights": digest,
            "quick_gelu": quick_gelu,
            "preprocess": None,
            "resolution": None,
            "decode": None,
            "precision": None,
            "features": known | {"width": first.shape[1], "normalised": self.normalise},
        }

    def blocks(
        self, columns: Sequence[str], done: RowSet | None = None
    ) -> Iterator[Callable[[], FeatureBlock]]:
        """Yield functions that read about 16 MB of features each, with their rows."""
        vectors = _Rows(self.vectors)
        for table in self.identities.tables(columns, self._block_rows()):
            read = vectors.take(len(table))
            if done is None or done.missing(table).true_count:
                yield partial(self._block, table, read, done)

    def _block(
        self, table: pa.Table, read: Callable[[], tuple[str, np.ndarray]], done: RowSet | None
    ) -> FeatureBlock:
        name, features = read()
        if not features.flags.writeable:  # torch takes no other
            features = features.copy()
        return FeatureBlock(table, self._checked(features, name)).without(done)

    def _checked(self, features: np.ndarray, name: str, fewest: int = _FEWEST) -> np.ndarray:
        shown = f"--features {redact(self.uri)}"
        shown = shown if self.uri.endswith(name) else f"{shown}, {name}"
        return unit_features(features, normalise=self.normalise, shown=shown, fewest=fewest)

    def _block_rows(self) -> int:
        first = self.vectors[0]
        return max(1024, _BLOCK_BYTES // max(1, first.shape[1] * first.dtype.itemsize))


class _Rows:
    """Reads the rows of several files one after another, whatever number at a time."""

    def __init__(self, vectors: Sequence[ArrayFile | ListFile]) -> None:
        self._left = [(vector.name, vector.shape[0], vector.slices()) for vector in vectors]

    def take(self, rows: int) -> Callable[[], tuple[str, np.ndarray]]:
        """Return a function that returns the next rows, and the file of the first."""
        parts = []
        first = ""
        while rows:
            name, left, slices = self._left.pop(0)
            count = min(rows, left)
            if count:
                first = first or name
                parts.append(slices.take(count))
                rows -= count
            if left > count:
                self._left.insert(0, (name, left - count, slices))
        return partial(_joined, first, parts)


def _joined(first: str, parts: Sequence[Callable[[], np.ndarray]]) -> tuple[str, np.ndarray]:
    arrays = [part() for part in parts]
    return first, arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def open_foreign_rows(uri: str, column: str | None) -> Manifest:
    """Return the manifest of features or of their metadata, as `iqa verify` compares it.

    Args:
        uri: What was ``--metadata`` or, without it, ``--features``.
        column: The array of ``.npz`` files that was scored.

    Raises:
        InputError: If it can't be read.
    """
    absolute = uri if has_scheme(uri) else str(Path(uri).absolute())
    suffix = kind_of_files(absolute, "manifest")
    if suffix == ".parquet":
        return MetadataIdentities.of(absolute, "manifest").manifest()
    folder, names = find_numbered(absolute, "manifest", suffix)
    arrays = tuple(ArrayFile.of(folder, name, column) for name in names)
    return ArrayIdentities(absolute, folder, arrays).manifest()


def kind_of_files(uri: str, option: str = "features") -> str:
    """Return which kind of files a path, a folder or a glob names.

    Raises:
        InputError: If it names none.
    """
    for suffix in _SUFFIXES:
        if uri.lower().endswith(suffix):
            return suffix
    _, there = suffixes_in(uri, option)
    for suffix in _SUFFIXES:
        if suffix in there:
            return suffix
    raise InputError(
        f"--{option} {redact(uri)} holds no features: give the output folder of `iqa embed`, or *.npy, "
        "*.npz or *.parquet files"
    )
