"""Features in a list column of Parquet files, fixed in size or not, as of Hugging Face `datasets`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.errors import InputError
from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.storage.folder import Folder

__all__ = ["ListFile", "list_columns", "matrix_of"]


def list_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns that are lists of floats."""
    return [field.name for field in schema if _is_list(field.type)]


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in lists) and pa.types.is_floating(kind.value_type)


def matrix_of(column: pa.Array, width: int) -> np.ndarray:
    """Return lists of floats as a matrix.

    Args:
        column: N lists, of any list type.
        width: Values D of a list.

    Returns:
        (N, D) of the column's float type; rows are NaN where a list is null or has another length.
    """
    kind = column.type.value_type.to_pandas_dtype()
    usable = pc.fill_null(pc.equal(pc.list_value_length(column), width), False)
    values = column.filter(usable).flatten()
    if values.null_count:  # a missing number is as good as a missing row
        values = values.cast(pa.float64())
    flat: np.ndarray = (
        values.to_numpy(zero_copy_only=False).astype(kind, copy=False).reshape(-1, width)
    )
    if len(flat) == len(column):
        return flat
    found = np.full((len(column), width), np.nan, dtype=kind)
    found[usable.to_numpy(zero_copy_only=False)] = flat
    return found


@dataclass(frozen=True)
class ListFile:
    """A list column of one Parquet file.

    Attributes:
        folder: Where the file is.
        name: The file.
        column: The column.
        rows: Number N of rows.
        width: Values D of the first list that has any.
        dtype: Their type.
        size: Bytes of the file.
    """

    folder: Folder
    name: str
    column: str
    rows: int
    width: int
    dtype: np.dtype
    size: int

    @classmethod
    def of(cls, folder: Folder, name: str, column: str | None) -> ListFile:
        """Read the footer of a file, and its first list.

        Raises:
            InputError: If it can't be read, or has no such column.
        """
        path = folder.path(name)
        try:
            with folder.fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                found = _column(parquet.schema_arrow, column, path)
                kind = parquet.schema_arrow.field(found).type
                rows = parquet.metadata.num_rows
                width = _first_length(parquet, found)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path} is not a readable Parquet file ({error_line(error)})"
            ) from error
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        return cls(folder, name, found, rows, width, dtype, int(folder.fs.size(path)))

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.rows, self.width

    def digest(self) -> str:
        """Return what tells the features from others; metadata and manifests digest the file itself."""
        return f"{self.column} of {self.size} bytes"

    def slices(self) -> ListSlices:
        """Return a reader of consecutive slices, from the first row on."""
        return ListSlices(self)


class ListSlices:
    """Reads a list column from its first row on, slice by slice."""

    def __init__(self, lists: ListFile) -> None:
        self._lists = lists
        self._batches = self._read()
        self._left = pa.chunked_array([], pa.null())

    def _read(self) -> Iterator[pa.Array]:
        lists = self._lists
        path = lists.folder.path(lists.name)
        try:
            with lists.folder.fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                for batch in parquet.iter_batches(16_384, columns=[lists.column]):
                    yield batch.column(0)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path}: column {lists.column} can't be read ({error_line(error)}): copy the file again"
            ) from error

    def take(self, rows: int) -> Callable[[], np.ndarray]:
        """Return a function that returns the next rows; it may run in another thread."""
        chunks, count = list(self._left.chunks), len(self._left)
        while count < rows:
            batch = next(self._batches)
            chunks.append(batch)
            count += len(batch)
        whole = pa.chunked_array(chunks)
        self._left = whole.slice(rows)
        wanted = whole.slice(0, rows)
        return lambda: matrix_of(wanted.combine_chunks(), self._lists.width)


def _column(schema: pa.Schema, column: str | None, path: str) -> str:
    lists = list_columns(schema)
    if column is None and len(lists) == 1:
        return lists[0]
    if column is None:
        raise InputError(
            f"{path} has {len(lists)} columns of float lists ({', '.join(lists) or 'none'}): name that "
            "of the "
            "features by --features-column"
        )
    if column not in lists:
        have = f"is {schema.field(column).type}" if column in schema.names else "is not there"
        raise InputError(
            f"--features-column {column} of {path} {have}, but features are lists of floats: name one of "
            f"{', '.join(lists) or '(none)'}"
        )
    return column


def _first_length(parquet: pq.ParquetFile, column: str) -> int:
    kind = parquet.schema_arrow.field(column).type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in parquet.iter_batches(1024, columns=[column]):
        lengths = pc.list_value_length(batch.column(0)).drop_null()
        # An empty one is an image without features.
        lengths = lengths.filter(pc.greater(lengths, 0))
        if len(lengths):
            return int(lengths[0].as_py())
    return 0
