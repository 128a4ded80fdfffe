"""Identities of foreign features: the rows of Parquet metadata, or the rows of the arrays themselves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.columns import (
    ERROR,
    HEIGHT,
    IMAGE_ID,
    MANIFEST_FILE,
    MANIFEST_ROW,
    OWN_NAMES,
    STATUS,
    URI,
    WIDTH,
)
from iqa_core.errors import InputError, Status
from iqa_core.redaction import error_line, redact
from iqa_core.tables.foreign.files import find_numbered
from iqa_core.tables.manifest import Manifest, ManifestFile
from iqa_core.tables.manifest_columns import as_type, unified_type
from iqa_core.tables.manifest_footers import FooterReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from iqa_core.storage.folder import Folder
    from iqa_core.tables.foreign.arrays import ArrayFile

__all__ = ["ArrayIdentities", "Identities", "MetadataIdentities"]


#: Columns that mean something else in the metadata of other programs, such as a download's status.
_SET_HERE = (MANIFEST_FILE, MANIFEST_ROW, STATUS, ERROR)


class Identities(Protocol):
    """The rows that features belong to."""

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """The files, in the order of the features' rows."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of the metadata, as they are there."""

    @property
    def kept(self) -> list[str]:
        """Columns that can be carried into an output: plain ones with names of their own."""

    def manifest(self) -> Manifest:
        """Return the rows as a manifest."""

    def tables(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield the rows in order, at most ``rows`` at a time, each table of one file.

        Args:
            columns: What to read: ``image_id``, ``uri``, ``width``, ``height`` and kept columns.
            rows: Largest number of rows of a table.
        """


@dataclass(frozen=True)
class ArrayIdentities:
    """Rows without metadata: their identity is their place in the array's file.

    Attributes:
        uri: ``--features``, made absolute.
        folder: Of the files.
        arrays: The files.
    """

    uri: str
    folder: Folder
    arrays: tuple[ArrayFile, ...]
    schema = pa.schema([])

    @property
    def kept(self) -> list[str]:
        """No columns."""
        return []

    @cached_property
    def files(self) -> tuple[ManifestFile, ...]:
        """The arrays' files."""
        return tuple(
            ManifestFile(array.name, array.size, (array.rows,), array.digest())
            for array in self.arrays
        )

    def manifest(self) -> Manifest:
        """Return the rows as a manifest."""
        return Manifest(self.uri, self.folder, self.files, self.schema)

    def tables(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield the identities; all that is known beside them is null."""
        for array in self.arrays:
            for start in range(0, array.rows, rows):
                count = min(rows, array.rows - start)
                nothing = pa.table({IMAGE_ID: pa.nulls(count, pa.string())})
                yield _finished(nothing, array.name, start, columns)


@dataclass(frozen=True)
class MetadataIdentities:
    """Rows of Parquet metadata, in the order of the features.

    Attributes:
        uri: ``--metadata``, or ``--features`` if these are Parquet.
        folder: Of the files.
        files: The files.
        schema: The columns of the first, of types that hold the values of all where there are such.
        uri_column: The column that names the images; None if there is none.
        features: Columns that are features, and no metadata.
    """

    uri: str
    folder: Folder
    files: tuple[ManifestFile, ...]
    schema: pa.Schema
    uri_column: str | None
    features: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, uri: str, option: str, uri_column: str | None = None, features: Sequence[str] = ()
    ) -> MetadataIdentities:
        """Read the footers of metadata.

        Args:
            uri: A Parquet file, a folder or a glob of them.
            option: The option that named it.
            uri_column: ``--uri-column``; None takes ``uri`` where it is.
            features: Columns that are features.

        Raises:
            InputError: If they can't be read, or have no such column.
        """
        folder, names = find_numbered(uri, option, ".parquet")
        reader = FooterReader(folder, names, {})
        files, schemas = [], []
        for name in names:
            try:
                footer = reader.read(name)
            except (OSError, pa.ArrowException) as error:
                raise InputError(
                    f"{folder.path(name)} is not a readable Parquet file ({error_line(error)}): restore it"
                ) from error
            metadata = footer.metadata
            groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            files.append(ManifestFile(name, footer.size, groups, footer.digest, (), footer.stamp))
            schemas.append(metadata.schema.to_arrow_schema().remove_metadata())
        wanted = uri_column or (URI if URI in schemas[0].names else None)
        if wanted is not None and wanted not in schemas[0].names:
            raise InputError(
                f"--uri-column {wanted} is no column of {redact(uri)}, which has "
                f"{', '.join(schemas[0].names)}: name one of these"
            )
        schema = _unified(dict(zip(names, schemas, strict=True)))
        return cls(uri, folder, tuple(files), schema, wanted, tuple(features))

    @property
    def kept(self) -> list[str]:
        """Plain columns whose names the output does not use itself."""
        taken = {*OWN_NAMES, *self.features, self.uri_column, *map(self._source, (WIDTH, HEIGHT))}
        return [f.name for f in self.schema if f.name not in taken and _is_plain(f.type)]

    def manifest(self) -> Manifest:
        """Return the rows as a manifest."""
        return Manifest(self.uri, self.folder, self.files, self.schema)

    def tables(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield the rows with their identity."""
        sources = {name: self._source(name) for name in columns}
        read = {
            name: source
            for name, source in sources.items()
            if source in self.schema.names and name not in _SET_HERE
        }
        names = [str(name) for name in dict.fromkeys(read.values())]
        for file in self.files:
            start = 0
            for batch in self._batches(file, names, rows):
                found = {
                    name: self._typed(batch.column(source), str(source), file.name)
                    for name, source in read.items()
                }
                if not found:
                    found = {IMAGE_ID: pa.nulls(batch.num_rows, self.manifest().image_id_type)}
                yield _finished(pa.table(found), file.name, start, columns)
                start += batch.num_rows

    def _source(self, name: str) -> str | None:
        """Return the column of the metadata that has a column of the output; LAION-400M has ``WIDTH``."""
        if name == URI:
            return self.uri_column
        upper = name.upper()
        is_upper = name in (WIDTH, HEIGHT) and name not in self.schema.names
        return upper if is_upper and upper in self.schema.names else name

    def _typed(self, values: pa.Array, column: str, file: str) -> pa.Array:
        return as_type(values, self.schema.field(column).type, f"column {column!r} of {file}")

    def _batches(self, file: ManifestFile, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        path = self.folder.path(file.name)
        try:
            with self.folder.fs.open(path, "rb") as handle:
                parquet = pq.ParquetFile(handle)
                yield from parquet.iter_batches(rows, columns=names)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise InputError(
                f"{path} can't be read, or lacks one of {', '.join(names)} ({error_line(error)}): "
                "restore it"
            ) from error


def _unified(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """Return the first schema; a plain column of other types in further files gets one that holds all.

    Where there is none, reading the file that differs says so, if the column is asked for.
    """
    fields = []
    for field in next(iter(schemas.values())):
        kinds = {
            file: schema.field(field.name).type
            for file, schema in schemas.items()
            if field.name in schema.names
        }
        unified = field
        if len(set(kinds.values())) > 1 and all(map(_is_plain, kinds.values())):
            with suppress(InputError):
                unified = field.with_type(unified_type(field.name, kinds))
        fields.append(unified)
    return pa.schema(fields)


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether values are numbers, texts or times: neither bytes nor lists nor structs."""
    checks = (
        *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_temporal),
    )
    return any(check(kind) for check in checks)


def _finished(table: pa.Table, file: str, start: int, columns: Sequence[str]) -> pa.Table:
    """Return rows with their identity, the status ``ok``, and null for what the metadata lack."""
    count = len(table)
    own = {
        MANIFEST_FILE: pa.array([file] * count, pa.string()),
        MANIFEST_ROW: pa.array(np.arange(start, start + count), pa.int64()),
        STATUS: pa.array([Status.OK.value] * count, pa.string()),
        ERROR: pa.nulls(count, pa.string()),
    }
    found = {name: table.column(name) for name in columns if name in table.column_names}
    if URI in found:
        found[URI] = _without_secrets(found[URI])
    for name in (WIDTH, HEIGHT):
        if name in columns:
            found[name] = _pixels(found.get(name), count)
    lacking = {name: pa.nulls(count, pa.string()) for name in columns if name not in found}
    rows = own | found | {name: v for name, v in lacking.items() if name not in own}
    return pa.table(rows)


def _pixels(column: pa.ChunkedArray | None, count: int) -> pa.ChunkedArray | pa.Array:
    """Return a column of sizes if it is one of whole numbers, else nulls."""
    if column is None or not pa.types.is_integer(column.type):
        return pa.nulls(count, pa.int32())
    fits = pc.and_(pc.greater_equal(column, 0), pc.less(column, 2**31))
    return pc.if_else(fits, column, None).cast(pa.int32())


def _without_secrets(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts redacted; only those with a sign of a password or a query are looked at."""
    texts = column.cast(pa.string())
    doubtful = pc.fill_null(pc.match_substring_regex(texts, "[@?&;]"), False)
    if not pc.any(doubtful).as_py():
        return texts
    redacted = [redact(text) for text in texts.filter(doubtful).to_pylist()]
    return pc.replace_with_mask(
        texts.combine_chunks(), doubtful.combine_chunks(), pa.array(redacted)
    )
