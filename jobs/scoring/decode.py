"""Decoding: URIs and encoded bytes to uint8 pixels.

Each failure becomes a status on its row. This module imports no model code, and neither may what it
imports: a cluster with GPUs has many decode workers, and importing torch and open_clip costs each of
them more than half a gigabyte.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import HEIGHT, IDENTITY, URI, VIEW_LEVELS, WIDTH
from iqa_core.errors import ImageError, Status
from iqa_core.images.degrade import degraded_views
from iqa_core.tables.manifest_reading import DATA, READ_ERROR

from ..ray_errors import this_node
from .isolation import Isolated, Watchdog, attempt
from .pixels import PixelBlock
from .stage_columns import DECODE_SECONDS, DECODED_ON, FETCH_SECONDS, repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.images.decode import Decoded

    from .settings import DecodeSettings

__all__ = ["BLOCK_BYTES", "decode_blocks", "decode_rows"]

#: Pixel bytes in one block between decoding and scoring.
BLOCK_BYTES = 64 * 1024 * 1024

_DECODED = pa.schema(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (VIEW_LEVELS, pa.list_(pa.int8())),
        (FETCH_SECONDS, pa.float32()),
        (DECODE_SECONDS, pa.float32()),
    ]
)


def decode_rows(table: pa.Table, *, settings: DecodeSettings) -> Iterator[pa.Table]:
    """Fetch and decode images (a Ray task).

    Args:
        table: Rows as :func:`jobs.scoring.read.read_rows` yields them.
        settings: How to fetch and decode.

    Yields:
        The rows with status, size and pixels, in tables of about ``BLOCK_BYTES``.
    """
    for block in decode_blocks(table, settings, BLOCK_BYTES):
        yield block.to_table()


def decode_blocks(
    table: pa.Table, settings: DecodeSettings, most_bytes: int
) -> Iterator[PixelBlock]:
    """Fetch and decode images in this process.

    Args:
        table: Rows as :func:`jobs.scoring.read.read_rows` yields them.
        settings: How to fetch and decode.
        most_bytes: A block ends once it has this many bytes of pixels.

    Yields:
        The rows in their order, without encoded bytes.
    """
    guard: Isolated | Watchdog
    if attempt():
        guard = Isolated(settings.decoder, settings.decode_seconds)
    else:
        guard = Watchdog(settings.decode_seconds)
    uris = pc.if_else(table.column(DATA).is_null(), table.column(URI), None).to_pylist()
    fetched = settings.fetcher.stream([uri or None for uri in uris])
    files, numbers = (table.column(name).to_pylist() for name in IDENTITY)
    internal = [name for name in (DATA, READ_ERROR) if name in table.column_names]
    lost = table.column(READ_ERROR).to_pylist() if READ_ERROR in internal else [None] * len(table)
    kept = table.drop_columns(internal)
    node = this_node()[1]
    with closing(guard):
        rows: list[dict[str, Any]] = []
        images: list[np.ndarray] = []
        places: list[int] = []
        size = start = 0
        for position, embedded in enumerate(table.column(DATA)):
            began = time.perf_counter()
            data = next(fetched)
            if embedded.is_valid:
                data = settings.fetcher.within_limit(embedded.as_py())
            elif reason := lost[position]:
                data = ImageError(Status.UNREADABLE, reason)
            got = time.perf_counter()
            row, image = _decode(data, settings.decoder, guard)
            if image is not None:
                places.append(len(rows))
                images.append(image)
                size += image.nbytes
                if settings.views:
                    key = f"{files[position]}:{numbers[position]}"
                    views, row[VIEW_LEVELS] = degraded_views(image, settings.views, key)
                    images += views
                    size += sum(view.nbytes for view in views)
            row[FETCH_SECONDS] = got - began
            row[DECODE_SECONDS] = time.perf_counter() - got
            rows.append(row)
            if size >= most_bytes or position == len(table) - 1:
                decoded = _with_columns(kept.slice(start, len(rows)), rows, node)
                pixels = images if settings.size is None else _in_one_array(images, settings.size)
                yield PixelBlock(decoded, np.asarray(places, dtype=np.int64), pixels)
                rows, images, places = [], [], []
                size, start = 0, position + 1


def _decode(
    data: bytes | ImageError | None,
    decoder: Callable[[bytes], Decoded],
    guard: Isolated | Watchdog,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return a row's columns, and its pixels if it has any."""
    try:
        if data is None:
            raise ImageError(Status.INVALID_ROW, "the row has neither a uri nor image bytes")
        if isinstance(data, ImageError):
            raise data
        image = guard.call(decoder, data)
    except ImageError as error:
        return {"status": error.status.value, "error": error.message}, None
    except Exception as error:  # a decoder may raise anything, which is the row's error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"status": Status.DECODE_ERROR.value, "error": reason}, None
    return {"status": Status.OK.value, WIDTH: image.width, HEIGHT: image.height}, image.pixels


def _in_one_array(images: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return np.stack(images) if images else np.empty((0, *size, 3), np.uint8)


def _with_columns(table: pa.Table, rows: list[dict[str, Any]], node: str) -> pa.Table:
    added = pa.Table.from_pylist(rows, schema=_DECODED)
    for name in added.column_names:
        table = table.append_column(name, added.column(name))
    return table.append_column(DECODED_ON, repeated(node, len(table)))
