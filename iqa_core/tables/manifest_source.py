"""Opens one Parquet file for reading in a worker, and classifies failures.

The footer is read once for each process. A file that is gone or was replaced since the work was planned is
refused; requests to a store are retried; every other failure is damage of the data.
"""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.errors import InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.retry import RetryPolicy
from iqa_core.tables.manifest_files import digest_like, file_info, file_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["ManifestSource", "StorageError", "UndecodableError"]

T = TypeVar("T")

#: Bytes of a column chunk that are buffered: of a local file, and in one request to a store.
_LOCAL_BUFFER = 1024 * 1024
_REMOTE_BUFFER = 8 * 1024 * 1024
#: Bytes that a store's file object reads ahead, so that small columns and row groups share requests.
_READ_AHEAD = 1024 * 1024
#: A store that restarts needs longer than one request may.
_RETRIES = RetryPolicy(attempts=6, first_wait=1.0)
#: Footers of the files that were read last.
_footers: OrderedDict[tuple[str, ...], pq.FileMetaData] = OrderedDict()
_FOOTERS = 4


class StorageError(Exception):
    """Reading failed for a reason other than the data; the reason is its cause."""


class UndecodableError(Exception):
    """The data that were read are not valid Parquet; the reason is its cause or its text."""


class ManifestSource:
    """One manifest file, opened on first use, and reopened after a failure.

    Args:
        folder: The manifest's folder.
        name: The file.
        digest: Of its content when the work was planned.
        stamp: Of :func:`iqa_core.tables.manifest_files.file_stamp` when the work was planned.

    Attributes:
        shown: Its path in messages.
    """

    def __init__(self, folder: Folder, name: str, digest: str | None, stamp: str) -> None:
        self.shown = redact(f"{folder.uri}/{name}")
        self._folder = folder
        self._path = folder.path(name)
        self._digest = digest
        self._stamp = stamp
        self._handle: _Handle | None = None
        self._file: pq.ParquetFile | None = None

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        handle, self._handle, self._file = self._handle, None, None
        if handle is not None:
            with suppress(Exception):
                handle.close()

    def open(self) -> pq.ParquetFile:
        """Return the opened file.

        Raises:
            StorageError: If it can't be opened now.
            InputError: If it is gone, or is not the one that was planned for.
        """
        if self._file is not None:
            return self._file
        local = self._folder.is_local
        try:
            options = {} if local else {"block_size": _READ_AHEAD}
            self._handle = _Handle(self._folder.fs.open(self._path, "rb", **options))
            info = file_info(self._folder, self._handle.file, self._path)
        except FileNotFoundError as error:
            raise self._gone() from error
        except Exception as error:  # the libraries of stores raise any type
            raise StorageError from error
        if self._stamp not in ("", file_stamp(self._folder, info)):
            self.check_unchanged()
        self._file = pq.ParquetFile(
            self._handle,
            metadata=self._footer(self._handle),
            buffer_size=_LOCAL_BUFFER if local else _REMOTE_BUFFER,
            pre_buffer=False,  # it would hold a whole row group
            page_checksum_verification=True,
        )
        return self._file

    def _footer(self, handle: _Handle) -> pq.FileMetaData:
        key = (self._folder.uri, self._path, self._digest or "", self._stamp)
        if key not in _footers:
            try:
                _footers[key] = pq.read_metadata(handle)
            except (OSError, pa.ArrowException) as error:
                if handle.failure is not None:
                    raise StorageError from handle.failure
                raise InputError(
                    f"{self.shown} is not a readable Parquet file any more ({error_line(error)}): "
                    "restore it"
                ) from error
            while len(_footers) > _FOOTERS:
                _footers.popitem(last=False)
        return _footers[key]

    def batches(self, group: int, columns: Sequence[str], at_once: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group in batches.

        Raises:
            StorageError: If the file can't be opened or read.
            UndecodableError: If what was read is not valid, or has not as many rows as the footer says.
            InputError: As of :meth:`open`, or if memory is short.
        """
        file = self.open()
        rows = 0
        try:
            for batch in file.iter_batches(
                at_once, row_groups=[group], columns=list(columns), use_threads=False
            ):
                rows += len(batch)
                yield batch
        except MemoryError as error:  # Arrow's too, and no damage
            raise InputError(
                f"{self.shown}, row group {group}: there is too little memory to read it "
                f"({error_line(error)}): use machines with more, or write smaller row groups"
            ) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            failure = self._handle.failure if self._handle else None
            # A disk that can't read a sector is damage; all else that fails in reading is not.
            if failure is not None and getattr(failure, "errno", None) != errno.EIO:
                raise StorageError from failure
            raise UndecodableError from error
        if rows != file.metadata.row_group(group).num_rows:
            raise UndecodableError(f"it holds {rows:,} rows")

    def check_unchanged(self) -> None:
        """Check that the file still is the one that the work was planned for.

        Raises:
            InputError: If it is gone or was replaced by another one.
        """
        fs = self._folder.fs
        try:
            fs.invalidate_cache()
            info = fs.info(self._path)
            if self._stamp in ("", file_stamp(self._folder, info)):
                return
            digest: str | None = digest_like(self._folder, self._path, self._digest)
        except FileNotFoundError as error:
            raise self._gone() from error
        except (OSError, pa.ArrowException):
            digest = None  # not even a Parquet file, or one that changes right now
        if digest != self._digest:
            raise InputError(
                f"{self.shown} was replaced while it was read: restore the file that --output was "
                "started with, or give another --output"
            )

    def _gone(self) -> InputError:
        return InputError(
            f"{self.shown} was removed while it was read: restore it, then the same command resumes"
        )

    def retried(self, action: Callable[[], T]) -> T:
        """Run an action that opens the file, with retries as :meth:`pause` allows."""
        failures = 0
        while True:
            try:
                return action()
            except StorageError as error:
                failures += 1
                self.pause(error, failures)

    def pause(self, error: StorageError, failures: int) -> None:
        """Close the file and wait before the next attempt.

        Args:
            error: The failure.
            failures: Number of failures, including this one.

        Raises:
            InputError: If there must be no further attempt.
        """
        self.close()
        cause = error.__cause__ or error
        if (
            self._folder.is_local
            or _RETRIES.is_exhausted(failures)
            or isinstance(cause, PermissionError)
        ):
            raise InputError(
                f"{self.shown} can't be read ({error_line(cause)}); what was finished is safe: once the "
                "file can be read, the same command resumes"
            ) from cause
        time.sleep(_RETRIES.wait_after(failures))


class _Handle:
    """A file object that records whether it failed, which Arrow's errors do not say."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 - what fsspec opens
        self.file = file
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self.file.read(size)
        except Exception as error:
            self.failure = error
            raise
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    @property
    def closed(self) -> bool:
        return bool(self.file.closed)

    def close(self) -> None:
        self.file.close()
