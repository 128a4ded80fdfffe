"""Export to tar shards of WebDataset: each image with its row of scores."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from iqa_core.columns import STATUS, URI, Kind, names_of
from iqa_core.errors import ImageError, InputError, Status
from iqa_core.exporting.target import new_folder
from iqa_core.exporting.types import python_rows
from iqa_core.images.sniff import sniff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.exporting.source import FinishedOutput
    from iqa_core.fetch.fetcher import Fetcher
    from iqa_core.storage.folder import Folder

__all__ = ["to_webdataset"]

_SUFFIXES = {"JPEG": "jpg", "TIFF": "tif", "JPEG 2000": "jp2"}
_SAMPLES_PER_SHARD = 10_000
_BYTES_PER_SHARD = 1_000_000_000
#: Rows whose images are on their way at once, together with those of the fetcher's threads.
_ROWS = 256


def to_webdataset(
    source: FinishedOutput,
    target: str,
    append: bool,
    on_rows: Callable[[int], object],
    fetcher: Fetcher,
) -> list[str]:
    """Write ``shard-*.tar``: of each row that is ``ok`` the image and a ``.json`` of its columns.

    Rows without an image are left out and counted, also those whose image can't be fetched any more.

    Raises:
        InputError: If no image could be written.
    """
    counts: dict[str, int] = {}
    provenance = source.provenance()
    with new_folder(target, provenance) as folder, ExitStack() as stack:
        shards = stack.enter_context(_Shards(folder))
        for row, image in _images(source, fetcher, on_rows, counts):
            shards.write(row, image)
        written = shards.samples
        if not written:
            raise InputError(
                f"--to webdataset has no image to write ({_told(counts)}): it needs rows with status "
                "ok and a uri; images within a manifest are not read"
            )
        provenance |= {"samples": written, "left_out": counts}
    left_out = f"; left out: {_told(counts)}" if counts else ""
    return [f"{written:,} images in {shards.number:,} shards{left_out}"]


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items())) or "no rows"


def _images(
    source: FinishedOutput,
    fetcher: Fetcher,
    on_rows: Callable[[int], object],
    counts: dict[str, int],
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield rows with their images; count the others by reason."""
    features = names_of(Kind.FEATURE, Kind.VIEW)
    columns = [name for name in source.schema.names if name not in features]

    def count(reason: str, number: int = 1) -> None:
        if number:
            counts[reason] = counts.get(reason, 0) + number

    for table in source.tables(columns, on_rows):
        ok = table.filter(pc.equal(table.column(STATUS), Status.OK.value))
        count("not scored", len(table) - len(ok))
        named = ok.filter(ok.column(URI).is_valid())
        count("without a uri", len(ok) - len(named))
        for start in range(0, len(named), _ROWS):
            rows = python_rows(named.slice(start, _ROWS))
            fetched = fetcher.stream([row[URI] for row in rows])
            for row, data in zip(rows, fetched, strict=True):
                if isinstance(data, bytes):
                    yield row, data
                elif isinstance(data, ImageError):
                    count(f"not fetched ({data.status})")


class _Shards:
    """Writes samples to numbered tar files of limited size."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._writer: Any = None
        self._in_shard = self._bytes = 0
        self.number = self.samples = 0

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        self._stack.close()

    def _next(self) -> None:
        import webdataset

        self._stack.close()
        folder = self._folder
        folder.fs.makedirs(folder.root, exist_ok=True)
        path = folder.path(f"shard-{self.number:06d}.tar")
        file = self._stack.enter_context(folder.fs.open(path, "wb"))
        self._writer = webdataset.TarWriter(file, encoder=False, mtime=0.0)
        self._stack.callback(self._writer.close)
        self.number += 1
        self._in_shard = self._bytes = 0

    def write(self, row: dict[str, Any], image: bytes) -> None:
        """Write one sample."""
        full = self._in_shard >= _SAMPLES_PER_SHARD or self._bytes >= _BYTES_PER_SHARD
        if self._writer is None or full:
            self._next()
        text = json.dumps(row, default=str).encode()
        sample = {"__key__": f"{self.samples:09d}", _suffix(image): image, "json": text}
        self._bytes += self._writer.write(sample)
        self._in_shard += 1
        self.samples += 1


def _suffix(image: bytes) -> str:
    try:
        name = sniff(image)
    except ImageError:  # it was replaced since it was scored
        return "bin"
    return _SUFFIXES.get(name, name.lower())
