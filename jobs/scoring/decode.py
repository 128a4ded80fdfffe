"""The decoding stage: URIs and encoded bytes to uint8 pixels (Ray tasks).

Each failure becomes a status on its row. This module imports no model code, and neither may what it
imports: a cluster has many decode workers, and importing torch and open_clip costs each of them more
than half a gigabyte.
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
from .isolation import Isolated, Watchdog, is_second_try
from .stage_columns import DECODE_SECONDS, DECODED_ON, FETCH_SECONDS, PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.images.decode import Decoded

    from .settings import DecodeSettings

__all__ = ["BLOCK_BYTES", "decode_rows"]

#: Pixel bytes in one block between decoding and scoring.
BLOCK_BYTES = 64 * 1024 * 1024

_DECODED = pa.schema(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (PIXELS, pa.large_binary()),
        (VIEW_LEVELS, pa.list_(pa.int8())),
        (FETCH_SECONDS, pa.float32()),
        (DECODE_SECONDS, pa.float32()),
        (DECODED_ON, pa.string()),
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
    guard: Isolated | Watchdog
    if is_second_try():
        guard = Isolated(settings.decoder, settings.decode_seconds)
    else:
        guard = Watchdog(settings.decode_seconds)
    rows: list[dict[str, Any]] = []
    size = start = 0
    uris = pc.if_else(table.column(DATA).is_null(), table.column(URI), None).to_pylist()
    fetched = settings.fetcher.stream([uri or None for uri in uris])
    files, numbers = (table.column(name).to_pylist() for name in IDENTITY)
    node = this_node()[1]
    internal = [name for name in (DATA, READ_ERROR) if name in table.column_names]
    lost = table.column(READ_ERROR).to_pylist() if READ_ERROR in internal else [None] * len(table)
    with closing(guard):
        for position, embedded in enumerate(table.column(DATA)):
            began = time.perf_counter()
            data = next(fetched)
            if embedded.is_valid:
                data = settings.fetcher.within_limit(embedded.as_py())
            elif reason := lost[position]:
                data = ImageError(Status.UNREADABLE, reason)
            got = time.perf_counter()
            row = _decode(data, settings.decoder, guard)
            if settings.views and row[PIXELS] is not None:
                _add_views(row, settings, f"{files[position]}:{numbers[position]}")
            row[FETCH_SECONDS] = got - began
            row[DECODE_SECONDS] = time.perf_counter() - got
            row[DECODED_ON] = node
            rows.append(row)
            size += len(row[PIXELS] or b"")
            if size >= BLOCK_BYTES or position == len(table) - 1:
                yield _append(table.slice(start, len(rows)).drop_columns(internal), rows)
                rows, size, start = [], 0, position + 1


def _decode(
    data: bytes | ImageError | None,
    decoder: Callable[[bytes], Decoded],
    guard: Isolated | Watchdog,
) -> dict[str, Any]:
    try:
        if data is None:
            raise ImageError(Status.INVALID_ROW, "the row has neither a uri nor image bytes")
        if isinstance(data, ImageError):
            raise data
        image = guard.call(decoder, data)
    except ImageError as error:
        return {"status": error.status.value, "error": error.message, PIXELS: None}
    except Exception as error:  # a decoder may raise anything, which is the row's error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"status": Status.DECODE_ERROR.value, "error": reason, PIXELS: None}
    return {
        "status": Status.OK.value,
        WIDTH: image.width,
        HEIGHT: image.height,
        PIXELS: image.pixels.tobytes(),
    }


def _add_views(row: dict[str, Any], settings: DecodeSettings, key: str) -> None:
    """Append the pixels of degraded copies to a row's pixels."""
    height, width = settings.size or (row[HEIGHT], row[WIDTH])
    image = np.frombuffer(row[PIXELS], np.uint8).reshape(height, width, 3)
    views, row[VIEW_LEVELS] = degraded_views(image, settings.views, key)
    row[PIXELS] = b"".join([row[PIXELS], *(view.tobytes() for view in views)])


def _append(table: pa.Table, rows: list[dict[str, Any]]) -> pa.Table:
    added = pa.Table.from_pylist(rows, schema=_DECODED)
    for name in added.column_names:
        table = table.append_column(name, added.column(name))
    return table
