"""The one reader of part files: an output's rows on disk, each with its identity.

Part files are Parquet; their metadata has a JSON document with the rows by status, a digest of the
run's fingerprint and the rows themselves as bitmaps, so that a resuming run reads footers only. Outputs of
older versions, which wrote less of it, are read, too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.columns import MANIFEST_FILE
from iqa_core.errors import InputError
from iqa_core.redaction import error_line
from iqa_core.tables.part_content import Depth, PartContent, content_of
from iqa_core.tables.plain_pages import find_plain_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow.dataset as ds

    from iqa_core.storage.folder import Folder

__all__ = [
    "PARTS",
    "PartFile",
    "PartFiles",
]

T = TypeVar("T")

PARTS = "part-*.parquet"
_RESTORE = "it was not written by this program or was damaged since; move it away and run again"


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
        import pyarrow.dataset as ds  # imports pandas, which takes half a second

        paths = [self.folder.path(name) for name in names]
        try:
            return ds.dataset(paths, filesystem=self.folder.fs, format="parquet")
        except (pa.ArrowException, OSError) as error:
            raise self.unreadable(names[0], error) from error

    def check(self, names: Sequence[str], columns: Sequence[str]) -> None:
        """Look for the part file that can't be read, after a read of many at once has failed.

        Args:
            names: The files.
            columns: What was read.

        Raises:
            InputError: For the first one; those whose footers can't be read come first.
        """
        for name in names:
            with PartFile(self, name) as part:
                part.schema()
        for _ in self.tables(columns, names):
            pass

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

    def read_group(
        self, group: int, columns: Sequence[str] | None = None, *, use_threads: bool = True
    ) -> pa.Table:
        """Read some columns of one row group; None reads all. With or without Arrow's threads."""
        names = None if columns is None else list(columns)
        return self._read(
            lambda file: file.read_row_group(group, columns=names, use_threads=use_threads)
        )

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
        return self._read(lambda file: content_of(self._name, file, depth, within))
