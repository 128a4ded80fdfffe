"""Reads the rows of a manifest in tables of bounded size.

Row groups are read one after the other and page by page, a few rows at a time: so memory depends on the
size of pages and of single images, not of row groups, and damage is located to its row group.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from iqa_core.columns import IMAGE, IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, URI
from iqa_core.errors import InputError
from iqa_core.redaction import error_line
from iqa_core.tables.column_sizes import group_bytes, leaves_of
from iqa_core.tables.manifest_columns import (
    as_text,
    as_type,
    column_type,
    image_parts,
    is_binary,
    partitions,
)
from iqa_core.tables.manifest_source import ManifestSource, StorageError, UndecodableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.storage.folder import Folder
    from iqa_core.tables.slices import RowGroupSlice

__all__ = ["DATA", "READ_ERROR", "DamagedManifestError", "read_slice"]

#: Column of encoded bytes between the reading and the decoding stage.
DATA = "_data"
#: Why a row's columns could not be read; null where they were.
READ_ERROR = "_read_error"

#: Maximum size of a table in bytes, unless a single row is larger.
_TABLE_BYTES = 64 * 1024 * 1024
#: Bytes that are decoded at once, by the average of a row group.
_READ_BYTES = 8 * 1024 * 1024
#: Rows of images that are decoded at once at most, as their sizes may be far from the average.
_READ_IMAGES = 16
#: Smaller pieces are copied into one; the others stay chunks of a table.
_COPIED_BYTES = 1024 * 1024


class DamagedManifestError(InputError):
    """Data of a manifest can't be decoded, although the file is the one that was opened.

    Args:
        message: One line, as of any :class:`InputError`.
        file: Name of the manifest file.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file

    def __reduce__(self) -> tuple[type[DamagedManifestError], tuple[str, str]]:
        """Support pickling."""
        return type(self), (self.on_command_line(), self.file)


def read_slice(
    folder: Folder,
    row_slice: RowGroupSlice,
    keep: Sequence[str],
    image_id_type: pa.DataType,
    batch_rows: int,
    *,
    schema: pa.Schema | None = None,
    skip_damaged: bool = False,
) -> Iterator[pa.Table]:
    """Read the wanted rows of one slice.

    Args:
        folder: The manifest's folder.
        row_slice: What to read.
        keep: Columns to keep.
        image_id_type: Type of ``image_id``.
        batch_rows: Rows of one table at most.
        schema: Types of the kept columns in the whole manifest; by default those of this file.
        skip_damaged: Continue after damaged data; the lost rows have a ``_read_error``.

    Yields:
        Tables of the identity columns, ``image_id``, ``uri``, ``_data`` (encoded bytes, null where
        the image is to be fetched), ``_read_error`` and the kept columns; of 64 MiB at most, unless
        a row alone has more.

    Raises:
        DamagedManifestError: If data can't be decoded, and they are not to be skipped.
        InputError: If the file is gone, was replaced, can't be read for other reasons, or has a
            value that a column's type in the whole manifest does not hold.
    """
    with closing(
        ManifestSource(folder, row_slice.file, row_slice.digest, row_slice.stamp)
    ) as source:
        reader = _SliceReader(
            source, row_slice, keep, image_id_type, batch_rows, schema, skip_damaged
        )
        yield from reader.tables()
        if folder.is_local:  # a store refuses to continue with a file that was replaced
            source.check_unchanged()


@dataclass(frozen=True)
class _Piece:
    """Some rows as they are in the file: of `batch`, whose first row is `row`, those of `numbers`."""

    batch: pa.RecordBatch
    row: int
    numbers: list[int]


@dataclass(frozen=True)
class _Lost:
    """Rows that can't be read, and the reason."""

    numbers: list[int]
    reason: str


class _SliceReader:
    """Reads one slice, a few rows at a time. Arguments as of :func:`read_slice`."""

    def __init__(
        self,
        source: ManifestSource,
        row_slice: RowGroupSlice,
        keep: Sequence[str],
        image_id_type: pa.DataType,
        batch_rows: int,
        schema: pa.Schema | None,
        skip_damaged: bool,
    ) -> None:
        self._source = source
        self._slice = row_slice
        self._batch_rows = batch_rows
        self._skip_damaged = skip_damaged
        self._pending: list[_Piece] = []
        file = source.retried(source.open)
        self._metadata: pq.FileMetaData = file.metadata
        types = {field.name: field.type for field in file.schema_arrow}
        self._has_uri = URI in types and not pa.types.is_null(types[URI])
        self._has_blobs = IMAGE in types or any(is_binary(types[k]) for k in keep if k in types)
        self._columns = _columns(types, keep, self._has_uri)
        self._leaves = leaves_of(self._metadata, self._columns)
        self._types = {IMAGE_ID: image_id_type}
        for name in keep:
            kind = types.get(name, pa.string())
            self._types[name] = schema.field(name).type if schema else column_type(name, kind)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the wanted rows, and those that are lost where damage is to be skipped."""
        rows = size = 0
        for piece in self._pieces():
            if isinstance(piece, _Lost):
                if self._pending:
                    yield self._flush()
                rows = size = 0
                for start in range(0, len(piece.numbers), self._batch_rows):
                    numbers = piece.numbers[start : start + self._batch_rows]
                    yield self._lost(numbers, piece.reason)
                continue
            more_rows, more = len(piece.numbers), piece.batch.nbytes
            too_many = rows + more_rows > self._batch_rows or size + more > _TABLE_BYTES
            if self._pending and too_many:
                yield self._flush()
                rows = size = 0
            self._pending.append(piece)
            rows += more_rows
            size += more
        if self._pending:
            yield self._flush()

    def _flush(self) -> pa.Table:
        """Return the rows read since the last call, and drop all references to them."""
        pieces, self._pending = self._pending, []
        if sum(piece.batch.nbytes for piece in pieces) < _COPIED_BYTES * len(pieces):
            return self._table(pieces)
        return pa.concat_tables([self._table([piece]) for piece in pieces])

    def _pieces(self) -> Iterator[_Piece | _Lost]:
        wanted = BitMap.deserialize(self._slice.wanted)
        first = self._slice.first
        for group in range(self._slice.group, self._slice.stop_group):
            rows = self._metadata.row_group(group).num_rows
            if here := wanted & BitMap(range(first, first + rows)):
                yield from self._group(group, first, rows, here)
            first += rows

    def _group(self, group: int, first: int, rows: int, wanted: BitMap) -> Iterator[_Piece | _Lost]:
        """Yield the wanted rows of one row group; after a failure, continue where it stopped."""
        done, last, failures = first, wanted.max(), 0
        at_once = self._rows_at_once(group, rows)
        while done <= last:
            try:
                row = first
                for batch in self._source.batches(group, self._columns, at_once):
                    here = wanted & BitMap(range(max(row, done), row + len(batch)))
                    if here:
                        yield _Piece(batch, row, list(here))
                    row += len(batch)
                    done = max(row, done)
                    if done > last:
                        break
            except StorageError as error:
                failures += 1
                self._source.pause(error, failures)
            except UndecodableError as error:
                # Arrow has no arrays of structs with more than 2 GiB of bytes.
                if isinstance(error.__cause__, pa.ArrowNotImplementedError) and at_once > 1:
                    at_once = 1
                    continue
                self._source.check_unchanged()
                what = f"row group {group} (rows {first:,} to {first + rows - 1:,})"
                reason = f"the data can't be read ({error_line(error.__cause__ or error)})"
                if not self._skip_damaged:
                    raise DamagedManifestError(
                        f"{self._source.shown}, {what}: {reason}: restore the file, or add "
                        "--skip-damaged to score the rest",
                        self._slice.file,
                    ) from error
                lost = wanted & BitMap(range(done, first + rows))
                yield _Lost(list(lost), f"{what} of the manifest file: {reason}")
                return

    def _rows_at_once(self, group: int, rows: int) -> int:
        size = group_bytes(self._metadata, group, self._leaves)
        most = min(self._batch_rows, _READ_BYTES * rows // max(1, size))
        return max(1, min(most, _READ_IMAGES) if self._has_blobs else most)

    def _table(self, pieces: Sequence[_Piece]) -> pa.Table:
        """Return rows in the manifest's types."""
        table = pa.Table.from_batches([piece.batch for piece in pieces])
        count = len(table)
        given = {name: _one_array(table.column(name)) for name in table.column_names}
        uri, data = pa.nulls(count, pa.string()), pa.nulls(count, pa.large_binary())
        if IMAGE in given:
            data, paths = image_parts(given[IMAGE])
            uri = uri if paths is None else paths
        if self._has_uri:
            uri = as_text(given[URI])
        columns = {URI: uri, DATA: data, READ_ERROR: pa.nulls(count, pa.string())}
        in_path = partitions(self._slice.file)
        for name, kind in self._types.items():
            values = given.get(name)
            if values is None:
                values = pa.array([in_path.get(name)] * count, pa.string())
                values = values if name in in_path else pa.nulls(count)
            columns[name] = as_type(values, kind, f"column {name!r} of {self._source.shown}")
        numbers, places, offset = [], [], 0
        for piece in pieces:
            numbers += piece.numbers
            places += [offset + number - piece.row for number in piece.numbers]
            offset += len(piece.batch)
        table = pa.table(columns)
        return self._placed(table if len(places) == count else table.take(places), numbers)

    def _lost(self, numbers: list[int], reason: str) -> pa.Table:
        count = len(numbers)
        columns = {URI: pa.nulls(count, pa.string()), DATA: pa.nulls(count, pa.large_binary())}
        columns |= {READ_ERROR: pa.array([reason] * count, pa.string())}
        columns |= {name: pa.nulls(count, kind) for name, kind in self._types.items()}
        return self._placed(pa.table(columns), numbers)

    def _placed(self, table: pa.Table, numbers: list[int]) -> pa.Table:
        """Add the rows' identities, and put the columns in order."""
        places = {
            MANIFEST_FILE: pa.array([self._slice.file] * len(numbers), pa.string()),
            MANIFEST_ROW: pa.array(numbers, pa.int64()),
        }
        names = (IMAGE_ID, URI, DATA, READ_ERROR, *self._types)
        return pa.table(places | {name: table.column(name) for name in names})


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _columns(types: dict[str, pa.DataType], keep: Sequence[str], has_uri: bool) -> list[str]:
    """Return the paths of the columns to read."""
    wanted = [URI, IMAGE, IMAGE_ID, *keep]
    columns = list(dict.fromkeys(name for name in wanted if name in types))
    image = types.get(IMAGE)
    if image is not None and pa.types.is_struct(image) and IMAGE not in keep:
        # `path` is an image's address only where nothing else is.
        paths = [f"{IMAGE}.path"] if not has_uri and image.get_field_index("path") >= 0 else []
        columns[columns.index(IMAGE) : columns.index(IMAGE) + 1] = [f"{IMAGE}.bytes", *paths]
    return columns
