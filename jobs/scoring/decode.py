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
from iqa_core.duplicates.content_hash import content_hash
from iqa_core.duplicates.descriptor import describe_pixels
from iqa_core.errors import ImageError, Status
from iqa_core.images.degrade import degraded_views
from iqa_core.images.encoded import EncodedJpeg
from iqa_core.tables.manifest_reading import DATA, READ_ERROR

from ..ray_errors import this_node
from .isolation import Isolated, Watchdog, attempt
from .pixels import PixelBlock, Stack
from .repeats import SeenImage, SeenPixels
from .stage_columns import (
    CONTENT_DIGEST,
    DECODE_SECONDS,
    DECODED_ON,
    DESCRIPTION,
    FETCH_SECONDS,
    TURN,
    repeated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.images.decode import Decoded

    from .repeats import Seen
    from .settings import DecodeSettings

__all__ = ["BLOCK_BYTES", "decode_blocks", "decode_rows"]

#: Pixel bytes of a block whose images are of any size.
BLOCK_BYTES = 64 * 1024 * 1024
#: Seconds after which a block ends whatever it holds: rows that fail have no pixels.
_MOST_SECONDS = 30.0

_DECODED = pa.schema(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (VIEW_LEVELS, pa.list_(pa.int8())),
        (CONTENT_DIGEST, pa.string()),
        (DESCRIPTION, pa.binary()),
        (FETCH_SECONDS, pa.float32()),
        (DECODE_SECONDS, pa.float32()),
    ]
)

_WITH_TURN = _DECODED.append(pa.field(TURN, pa.int8()))


def decode_rows(
    table: pa.Table, *, settings: DecodeSettings, most_bytes: int = BLOCK_BYTES
) -> Iterator[pa.Table]:
    """Fetch and decode images (a Ray task).

    Args:
        table: Rows as :func:`jobs.scoring.read.read_rows` yields them.
        settings: How to fetch and decode.
        most_bytes: A block ends once it has this many bytes of pixels.

    Yields:
        The rows with status, size and pixels.
    """
    seen = SeenPixels() if settings.dedupe else None
    for block in decode_blocks(table, settings, most_bytes, seen):
        yield block.to_table()


def decode_blocks(
    table: pa.Table, settings: DecodeSettings, most_bytes: int, seen: Seen | None = None
) -> Iterator[PixelBlock]:
    """Fetch and decode images in this process.

    Args:
        table: Rows as :func:`jobs.scoring.read.read_rows` yields them.
        settings: How to fetch and decode.
        most_bytes: A block ends once it has this many bytes of pixels, or took half a minute.
        seen: What is remembered of images that were decoded before; None decodes each.

    Yields:
        The rows in their order, without encoded bytes. Where JPEGs are left to a device, their bytes are in
        place of their pixels, (bytes,) uint8, and the column ``TURN`` has their orientation.
    """
    guard: Isolated | Watchdog
    if attempt():
        guard = Isolated(settings.decoder, settings.decode_seconds)
    else:
        guard = Watchdog(settings.decode_seconds)
    if seen:
        seen.begin()
    contents = _contents(table, settings, seen)
    files, numbers = (table.column(name).to_pylist() for name in IDENTITY)
    internal = [name for name in (DATA, READ_ERROR) if name in table.column_names]
    kept = table.drop_columns(internal)
    node = this_node()[1]
    with closing(guard):
        rows: list[dict[str, Any]] = []
        images = _collection(settings, most_bytes)
        places: list[int] = []
        size = start = 0
        yielded = time.perf_counter()
        for position in range(len(table)):
            began = time.perf_counter()
            data, digest = next(contents)
            got = time.perf_counter()
            row, image = _decode(data, settings.decoder, guard)
            row[CONTENT_DIGEST] = digest
            if settings.descriptors and isinstance(data, bytes) and image is not None:
                row[DESCRIPTION] = describe_pixels(image if image.ndim == 3 else image[0])
            if seen and digest and isinstance(data, bytes) and image is not None:
                found = SeenImage(row[WIDTH], row[HEIGHT], image, row.get(DESCRIPTION))
                seen.note(digest, found)
            if image is not None:
                places.append(len(rows))
                images.extend(image if image.ndim == 4 else [image])
                size += image.nbytes
                if settings.views:
                    key = f"{files[position]}:{numbers[position]}"
                    views, row[VIEW_LEVELS] = degraded_views(image, settings.views, key)
                    images.extend(views)
                    size += sum(view.nbytes for view in views)
            row[FETCH_SECONDS] = got - began
            row[DECODE_SECONDS] = time.perf_counter() - got
            rows.append(row)
            is_late = time.perf_counter() - yielded >= _MOST_SECONDS
            if size >= most_bytes or is_late or position == len(table) - 1:
                schema = _WITH_TURN if settings.leaves_encoded else _DECODED
                decoded = _with_columns(kept.slice(start, len(rows)), rows, schema, node)
                pixels = images.images() if isinstance(images, Stack) else images
                yield PixelBlock(decoded, np.asarray(places, dtype=np.int64), pixels)
                rows, images, places = [], _collection(settings, most_bytes), []
                size, start = 0, position + 1
                yielded = time.perf_counter()


def _contents(
    table: pa.Table, settings: DecodeSettings, seen: Seen | None
) -> Iterator[tuple[bytes | SeenImage | ImageError | None, str | None]]:
    """Yield each row's bytes, or what is known of its image, or why there are none; and its hash.

    A URI that occurs again in the table is not fetched again, if its image is remembered then.
    """
    uris = pc.if_else(table.column(DATA).is_null(), table.column(URI), None).to_pylist()
    uris = [uri or None for uri in uris]
    ahead = list(uris)
    if seen:
        first = {uri: place for place, uri in reversed(list(enumerate(uris)))}
        ahead = [uri if first[uri] == place else None for place, uri in enumerate(uris)]
    fetched = settings.fetcher.stream(ahead)
    lost = table.column(READ_ERROR).to_pylist() if READ_ERROR in table.column_names else None
    digests: dict[str, str] = {}
    hashes = settings.hashes or settings.dedupe
    for place, embedded in enumerate(table.column(DATA)):
        data: bytes | SeenImage | ImageError | None = next(fetched)
        uri = uris[place]
        if embedded.is_valid:
            data = settings.fetcher.within_limit(embedded.as_py())
        elif lost and lost[place]:
            data = ImageError(Status.UNREADABLE, lost[place])
        elif seen and uri and ahead[place] is None:
            digest = digests.get(uri)
            known = seen.find(digest) if digest else None
            if known:
                yield known, digest
                continue
            (data,) = settings.fetcher.stream([uri])
        digest = content_hash(data) if hashes and isinstance(data, bytes) else None
        if digest and uri:
            digests[uri] = digest
        if digest and seen:
            data = seen.find(digest) or data
        yield data, digest


def _decode(
    data: bytes | SeenImage | ImageError | None,
    decoder: Callable[[bytes], Decoded | EncodedJpeg],
    guard: Isolated | Watchdog,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return a row's columns, and its pixels or encoded bytes if it has any."""
    try:
        if data is None:
            raise ImageError(Status.INVALID_ROW, "the row has neither a uri nor image bytes")
        if isinstance(data, ImageError):
            raise data
        if isinstance(data, SeenImage):
            known = {WIDTH: data.width, HEIGHT: data.height, DESCRIPTION: data.description}
            return {"status": Status.OK.value, **known}, data.pixels
        image = guard.call(decoder, data)
    except ImageError as error:
        return {"status": error.status.value, "error": error.message}, None
    except Exception as error:  # a decoder may raise anything, which is the row's error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"status": Status.DECODE_ERROR.value, "error": reason}, None
    row = {"status": Status.OK.value, WIDTH: image.width, HEIGHT: image.height}
    if isinstance(image, EncodedJpeg):
        return row | {TURN: image.turn}, image.data
    return row, image.pixels


def _collection(settings: DecodeSettings, most_bytes: int) -> Stack | list[np.ndarray]:
    """Return where the images of a block are collected: one array, if they have one size."""
    if settings.size is None or settings.leaves_encoded:
        return []
    height, width = settings.size
    return Stack(settings.size, most_bytes // (height * width * 3) + 1 + settings.views)


def _with_columns(
    table: pa.Table, rows: list[dict[str, Any]], schema: pa.Schema, node: str
) -> pa.Table:
    added = pa.Table.from_pylist(rows, schema=schema)
    for name in added.column_names:
        table = table.append_column(name, added.column(name))
    return table.append_column(DECODED_ON, repeated(node, len(table)))
