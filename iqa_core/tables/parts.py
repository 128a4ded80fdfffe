"""The one reader of part files: an output's rows on disk, each with its identity.

Part files are Parquet; their metadata has a JSON document with the rows by status, a digest of the
run's fingerprint and the rows themselves as bitmaps, so that a resuming run reads footers only. Outputs of
older versions, which wrote less of it, are read, too.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyroaring import BitMap

from iqa_core.columns import IDENTITY, MANIFEST_FILE, STATUS
from iqa_core.errors import InputError
from iqa_core.redaction import error_line
from iqa_core.tables.plain_pages import find_plain_chunk
from iqa_core.tables.rows import RowSet, rows_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from iqa_core.storage.folder import Folder

__all__ = [
    "PARTS",
    "Depth",
    "PartContent",
    "PartFile",
    "PartFiles",
    "count_statuses",
]

T = TypeVar("T")

PARTS = "part-*.parquet"
_METADATA_KEY = b"iqa"
_RESTORE = "it was not written by this program or was damaged since; move it away and run again"


class Depth(Enum):
    """How much of a part file is read to learn its rows."""

    #: The footer, if its metadata have all that is needed; else as IDENTITIES.
    FOOTER = "footer"
    #: The identity columns.
    IDENTITIES = "identities"
    #: All columns to their end, with checksums, to verify that the file is undamaged.
    WHOLE = "whole"


@dataclass(frozen=True)
class PartContent:
    """What an audit needs to know of a part file.

    Attributes:
        name: The file's name.
        rows: Its rows.
        statuses: Rows by status.
        fingerprint: Digest of the fingerprint that it was written under; None if it has none.
    """

    name: str
    rows: RowSet
    statuses: Mapping[str, int]
    fingerprint: str | None

    @classmethod
    def of(cls, name: str, table: pa.Table, fingerprint: str | None) -> PartContent:
        """Return the content of a part file with a table's rows."""
        return cls(name, RowSet.of(table), count_statuses(table), fingerprint)

    def metadata(self) -> dict[bytes, bytes]:
        """Return the schema metadata that the part file carries."""
        document: dict[str, Any] = {
            "statuses": dict(self.statuses),
            "fingerprint": self.fingerprint,
        }
        if not self.rows.duplicates:  # bitmaps have no place for them
            self.rows.compact()
            document["rows"] = {
                file: b64encode(rows.serialize()).decode() for file, rows in self.rows.bitmaps()
            }
        return {_METADATA_KEY: json.dumps(document).encode()}


def count_statuses(table: pa.Table) -> dict[str, int]:
    """Return the number of rows with each status."""
    counts = pc.value_counts(table.column(STATUS)).to_pylist()
    return {count["values"]: count["counts"] for count in counts}


@dataclass(frozen=True)
class PartFiles:
    """The part files of an output folder.

    Reading from a remote store is retried after transient failures. A file that can't be read raises an
    :class:`InputError` that names the file.

    Attributes:
        folder: The output.
        shown: Name of the folder for messages, such as ``--scores O``.
        fix: Advice for a file that can't be read.
    """

    folder: Folder
    shown: str = ""
    fix: str = field(default=_RESTORE, repr=False)

    def names(self) -> list[str]:
        """Return the files' names, sorted."""
        return self.folder.list(PARTS)

    def stamps(self) -> dict[str, str]:
        """Return the files' names, sorted, each with a version tag that changes with the file."""
        return self.folder.stamps(PARTS)

    def open(self, name: str) -> PartFile:
        """Return a part file to read from within a ``with`` statement."""
        return PartFile(self, name)

    def schema(self, name: str) -> pa.Schema:
        """Return the columns of a part file, without metadata.

        Raises:
            InputError: If it can't be read.
        """
        with PartFile(self, name) as part:
            return part.schema()

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a part file.

        Args:
            name: The file.
            columns: What to read; None reads everything.

        Raises:
            InputError: If it can't be read.
        """
        with PartFile(self, name) as part:
            return part.read(columns)

    def tables(
        self, columns: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Read the rows, one row group at a time.

        Args:
            columns: What to read; None reads everything.
            names: Part files to read; None reads all.

        Raises:
            InputError: If a file can't be read.
        """
        for name in self.names() if names is None else names:
            with PartFile(self, name) as part:
                for group in range(part.row_groups()):
                    yield part.read_group(group, columns)

    def content(
        self, name: str, depth: Depth = Depth.FOOTER, within: Mapping[str, range] | None = None
    ) -> PartContent:
        """Read the identities and statuses of a part file.

        Args:
            name: The file.
            depth: How much of it is read.
            within: Ranges of row numbers, by manifest file; only rows in these count.

        Raises:
            InputError: If it can't be read.
        """
        with PartFile(self, name, for_audit=True, checksums=depth is Depth.WHOLE) as part:
            return part.content(depth, within)

    def dataset(self, names: Sequence[str]) -> ds.Dataset:
        """Return part files as one dataset, for filters and projections over all of them.

        Raises:
            InputError: If the first can't be read.
        """
        paths = [self.folder.path(name) for name in names]
        try:
            return ds.dataset(paths, filesystem=self.folder.fs, format="parquet")
        except (pa.ArrowException, OSError) as error:
            raise self.unreadable(names[0], error) from error

    def unreadable(self, name: str, error: Exception) -> InputError:
        """Return the error of a part file that can't be read."""
        shown = self.shown or self.folder.uri
        if isinstance(error, FileNotFoundError):
            return InputError(
                f"part file {name} of {shown} was removed while it was read: another run is at work "
                "on this output; wait for it"
            )
        reason = error_line(error)
        return InputError(f"part file {name} of {shown} can't be read ({reason}): {self.fix}")


class PartFile:
    """One part file, opened on first use, and reopened after a failure of the store.

    A file that can't be read raises an :class:`InputError` that names it.

    Args:
        parts: The part files that it belongs to.
        name: The file.
        for_audit: Read file names dictionary-encoded, which is faster to add to a set of rows.
        checksums: Check each page's checksum.
    """

    def __init__(
        self, parts: PartFiles, name: str, *, for_audit: bool = False, checksums: bool = False
    ) -> None:
        self._parts = parts
        self._name = name
        self._dictionary = [MANIFEST_FILE] if for_audit else None
        self._checksums = checksums
        self._handle: Any = None
        self._file: pq.ParquetFile | None = None

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        handle, self._handle, self._file = self._handle, None, None
        if handle is not None:
            with suppress(Exception):
                handle.close()

    def _open(self) -> pq.ParquetFile:
        if self._file is None:
            folder = self._parts.folder
            self._handle = folder.fs.open(folder.path(self._name), "rb")
            self._file = pq.ParquetFile(
                self._handle,
                read_dictionary=self._dictionary,
                page_checksum_verification=self._checksums,
            )
        return self._file

    def _read(self, action: Callable[[pq.ParquetFile], T]) -> T:
        def attempt() -> T:
            try:
                return action(self._open())
            except Exception:
                self._close()
                raise

        try:
            return self._parts.folder.retried(attempt)
        except MemoryError:  # also Arrow's; it is no damage
            raise
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise self._parts.unreadable(self._name, error) from error

    def schema(self) -> pa.Schema:
        """Return its columns, without metadata."""
        schema: pa.Schema = self._read(lambda file: file.schema_arrow)
        return schema.remove_metadata()

    def row_groups(self) -> int:
        """Return the number of its row groups."""
        return self._read(lambda file: int(file.num_row_groups))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read some columns; None reads all."""
        names = None if columns is None else list(columns)
        return self._read(lambda file: file.read(names))

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read some columns of one row group; None reads all."""
        names = None if columns is None else list(columns)
        return self._read(lambda file: file.read_row_group(group, columns=names))

    def read_lists(self, group: int, column: str) -> np.ndarray | None:
        """Read a column of fixed-size float16 lists of one row group, without Arrow.

        Returns:
            (N, D) float16, NaN where a list is null; None if the column must be read by Arrow.
        """
        chunk = self._read(lambda file: find_plain_chunk(file, group, column))
        if chunk is None:
            return None

        def read(_: pq.ParquetFile) -> bytes:
            self._handle.seek(chunk.offset)
            data = bytes(self._handle.read(chunk.size))
            if len(data) < chunk.size:
                raise OSError(f"{len(data):,} bytes where {chunk.size:,} were expected")
            return data

        return chunk.decode(self._read(read))

    def content(self, depth: Depth, within: Mapping[str, range] | None = None) -> PartContent:
        """Read identities and statuses, of rows in some ranges or of all."""
        return self._read(lambda file: _content_of(self._name, file, depth, within))


def _content_of(
    name: str, file: pq.ParquetFile, depth: Depth, within: Mapping[str, range] | None
) -> PartContent:
    metadata = json.loads((file.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}"))
    statuses = metadata.get("statuses", {})
    known = sum(statuses.values()) == file.metadata.num_rows
    columns = [*IDENTITY] if known else [*IDENTITY, STATUS]
    stated = rows = _rows_in(metadata, file) if known else None
    table = None
    if rows is None or depth is not Depth.FOOTER:
        table = file.read(None if depth is Depth.WHOLE else columns)
        rows = RowSet.of(table)
        if stated is not None and stated != rows:
            raise ValueError("its footer states other rows than it holds")
        if STATUS in table.column_names:
            statuses = count_statuses(table)
    content = PartContent(name, rows, statuses, metadata.get("fingerprint"))
    if within is None or not (outside := len(rows) - len(rows.within(within))):
        return content
    if outside == len(rows):
        return replace(content, rows=RowSet(), statuses={})
    if table is None or STATUS not in table.column_names:
        table = file.read([*IDENTITY, STATUS])
    table = table.filter(rows_within(table, within))
    return PartContent.of(name, table, content.fingerprint)


def _rows_in(metadata: Mapping[str, Any], file: pq.ParquetFile) -> RowSet | None:
    """Return the rows that a part file's metadata state; None if they do not, or not all."""
    bitmaps = {
        name: BitMap.deserialize(b64decode(rows)) for name, rows in metadata.get("rows", {}).items()
    }
    rows = RowSet.of_bitmaps(bitmaps)
    return rows if len(rows) == file.metadata.num_rows else None
