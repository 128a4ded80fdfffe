"""Reads the footers of a manifest's files: many at a time, each in as few requests as possible."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.storage.folder import CONNECTIONS
from iqa_core.tables.manifest_files import content_digest, file_info, file_stamp, has_checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["FooterReader", "OpenedFooter"]

T = TypeVar("T")

#: Local footers are read by Python and C++ in turns: more threads would wait for each other.
_LOCAL_READERS = 4
#: Bytes at the end of a stored file that are read at first; longer footers need a second request.
_TAIL_BYTES = 64 * 1024
#: Size and magic bytes behind a footer.
_AFTER_FOOTER = 8
#: Local files are read to their end for their digests if all of them together are not larger.
_DIGEST_TOTAL = 2**30


@dataclass(frozen=True)
class OpenedFooter:
    """What is read of a manifest's file when the manifest is opened.

    Attributes:
        metadata: The footer.
        size: Bytes of the file.
        digest: Of :func:`iqa_core.tables.manifest_files.content_digest`.
        stamp: Of :func:`iqa_core.tables.manifest_files.file_stamp`.
    """

    metadata: pq.FileMetaData
    size: int
    digest: str
    stamp: str


class FooterReader:
    """Reads the footers of a manifest's files.

    Args:
        folder: The manifest's folder.
        names: The files.
        infos: What a store's listing told of them, by path.
    """

    def __init__(
        self, folder: Folder, names: Sequence[str], infos: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._folder = folder
        self._names = names
        self._infos = infos
        self._whole = folder.is_local and self._total_size() <= _DIGEST_TOTAL

    def _total_size(self) -> int:
        paths = (self._folder.path(name) for name in self._names)
        try:
            return sum(int(self._folder.fs.size(path)) for path in paths)
        except OSError:  # reading will say which
            return 0

    def map(self, action: Callable[[str], T]) -> list[T]:
        """Return what an action returns for each file, run in threads."""
        readers = _LOCAL_READERS if self._folder.is_local else CONNECTIONS
        with ThreadPoolExecutor(max(1, min(readers, len(self._names)))) as pool:
            return list(pool.map(action, self._names))

    def read(self, name: str) -> OpenedFooter:
        """Read a file's footer.

        Raises:
            OSError, pyarrow.ArrowException: If it can't be read.
        """
        path = self._folder.path(name)
        info = self._infos.get(path, {})
        if info.get("size") and has_checksum(self._folder, info):
            return self._folder.retried(lambda: self._read_tail(path, info))
        return self._folder.retried(lambda: self._read_opened(path))

    def _read_opened(self, path: str) -> OpenedFooter:
        folder = self._folder
        with folder.fs.open(path, "rb") as file:
            info = file_info(folder, file, path)
            metadata = pq.read_metadata(file)
            digest = content_digest(folder, file, info, metadata, whole=self._whole)
        return OpenedFooter(metadata, int(info["size"] or 0), digest, file_stamp(folder, info))

    def _read_tail(self, path: str, info: Mapping[str, Any]) -> OpenedFooter:
        """Read the footer alone, of a file whose size and checksum the store's listing has."""
        size = int(info["size"])
        tail = self._tail(path, size, _TAIL_BYTES)
        needed = int.from_bytes(tail[-_AFTER_FOOTER:-4], "little") + _AFTER_FOOTER
        if len(tail) < needed <= size:
            tail = self._tail(path, size, needed)
        metadata = pq.read_metadata(pa.BufferReader(tail))
        digest = content_digest(self._folder, None, info, metadata)
        return OpenedFooter(metadata, size, digest, file_stamp(self._folder, info))

    def _tail(self, path: str, size: int, length: int) -> bytes:
        return bytes(self._folder.fs.cat_file(path, start=max(0, size - length), end=size))
