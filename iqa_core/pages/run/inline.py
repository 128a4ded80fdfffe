"""Reads images that a manifest itself holds, a few rows at a time: row groups may be larger than memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.columns import IMAGE, MANIFEST_FILE, MANIFEST_ROW
from iqa_core.errors import ImageError
from iqa_core.redaction import error_line
from iqa_core.tables.column_sizes import group_bytes, leaves_of
from iqa_core.tables.manifest_columns import image_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["NO_FOLDER", "NO_IMAGE", "read_inline"]

NO_FOLDER = "the manifest's folder is unknown: give --manifest"
NO_IMAGE = "the row has no uri, and no image in the manifest"
_NO_ROW = "the manifest file has no such row: it is another one than was scored"

_BUFFER = 1024 * 1024  # bytes of a column chunk that are read at once
_BATCH_BYTES = 8 * 1024 * 1024  # bytes that are decoded at once, by the average of a row group
_BATCH_ROWS = 16  # at most, as images may be far from the average


def read_inline(
    rows: Mapping[int, Mapping[str, Any]],
    folder: str | None,
    max_bytes: int,
    check_time: Callable[[], None],
) -> Iterator[tuple[int, bytes | str]]:
    """Read the encoded images of rows.

    Args:
        rows: By number, with identity.
        folder: The manifest's; None if unknown.
        max_bytes: Limit on an encoded image.
        check_time: Raises an ImageError once there is no more time.

    Yields:
        Each row's number with its image, or with the reason why there is none.
    """
    by_file: dict[str, list[tuple[int, int]]] = {}
    for number, row in rows.items():
        by_file.setdefault(row[MANIFEST_FILE], []).append((row[MANIFEST_ROW], number))
    for name, places in by_file.items():
        if folder is None:
            yield from ((number, NO_FOLDER) for _, number in places)
            continue
        left = {number for _, number in places}
        reason = _NO_ROW
        try:
            check_time()
            with fsspec.open(f"{folder}/{name}", "rb") as file:
                parquet = pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
                for number, image in _read_file(parquet, sorted(places), max_bytes, check_time):
                    left.discard(number)
                    yield number, image
        except Exception as error:  # an unknown file: whatever it raises, the page is made
            reason = _reason(error)
        yield from ((number, reason) for number in sorted(left))


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return error.message
    return f"the manifest file can't be read ({error_line(error)})"


def _read_file(
    file: pq.ParquetFile,
    places: Sequence[tuple[int, int]],
    max_bytes: int,
    check_time: Callable[[], None],
) -> Iterator[tuple[int, bytes | str]]:
    """Yield the images of a file; ``places`` are row in the file and number, ascending."""
    column = _column_of(file.schema_arrow)
    if column is None:
        yield from ((number, NO_IMAGE) for _, number in places)
        return
    leaves = leaves_of(file.metadata, [column])
    start = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        here = {number: row - start for row, number in places if start <= row < start + rows}
        start += rows
        if not here:
            continue
        average = group_bytes(file.metadata, group, leaves) // rows
        at_once = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, average)))
        left = dict(here)
        try:
            check_time()
            first = 0
            batches = file.iter_batches(
                at_once, row_groups=[group], columns=[column], use_threads=False
            )
            for batch in batches:
                check_time()
                stop = first + len(batch)
                for number in [number for number, row in left.items() if row < stop]:
                    yield number, _image(batch.column(0), left.pop(number) - first, max_bytes)
                first = stop
                if not left:
                    break
        except Exception as error:  # other row groups may be readable
            yield from ((number, _reason(error)) for number in left)


def _column_of(schema: pa.Schema) -> str | None:
    """Return the path of the column of encoded images."""
    if IMAGE not in schema.names:
        return None
    kind = schema.field(IMAGE).type
    if not pa.types.is_struct(kind):
        return IMAGE
    return f"{IMAGE}.bytes" if kind.get_field_index("bytes") >= 0 else None


def _image(column: pa.Array, place: int, max_bytes: int) -> bytes | str:
    data = image_parts(column.slice(place, 1))[0][0]
    if not data.is_valid:
        return NO_IMAGE
    buffer = data.as_buffer()
    if buffer.size > max_bytes:
        return f"more than {max_bytes:,} bytes"
    return buffer.to_pybytes() or NO_IMAGE
