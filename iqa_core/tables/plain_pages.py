"""Reads a Parquet column of fixed-size float16 lists whose pages are plain and uncompressed.

That is how features are written (:mod:`iqa_core.tables.part_encoding`). Arrow reads such a column value by
value, which takes several times as long as all else that scoring from features does; here the values of a
page are copied as one. Whatever has another form is left to Arrow.

Source of the layout: https://parquet.apache.org/docs/file-format/data-pages/ (data pages, encodings
PLAIN and RLE), and the compact protocol of Thrift for page headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["PlainChunk", "find_plain_chunk"]

_DATA_PAGE = 0
_PLAIN, _RLE = 0, 3
#: Definition levels of nullable lists of nullable values.
_NULL_LIST, _VALUE = 0, 3


class UnknownLayoutError(Exception):
    """The pages are not in the form that this module reads."""


class PlainChunk:
    """Where the pages of such a column are in one row group.

    Attributes:
        offset: First byte in the file.
        size: Bytes.
        rows: Rows of the row group.
        width: Values of a list, D.
    """

    def __init__(self, offset: int, size: int, rows: int, width: int) -> None:
        self.offset = offset
        self.size = size
        self.rows = rows
        self.width = width

    def decode(self, data: bytes) -> np.ndarray | None:
        """Return the lists, (rows, D) float16, NaN where a list is null; None if the layout is another.

        Args:
            data: The bytes of the chunk.
        """
        try:
            return self._decode(data)
        except (UnknownLayoutError, LookupError, TypeError, ValueError, OverflowError):
            return None  # also pages that are damaged: Arrow says how

    def _decode(self, data: bytes) -> np.ndarray:
        lists = np.empty((self.rows, self.width), dtype=np.float16)
        flat = lists.reshape(-1)
        null_rows: list[np.ndarray] = []
        place = found = nulls = 0
        while place < len(data):
            header, place = _struct(data, place)
            size, page = int(header[3]), header.get(5)
            if header[1] != _DATA_PAGE or page is None or page[2] != _PLAIN:
                raise UnknownLayoutError
            if (page[3], page[4]) != (_RLE, _RLE):
                raise UnknownLayoutError
            stop, count = place + size, int(page[1])
            if size <= 0 or count < 0:
                raise UnknownLayoutError
            place = _after_levels(data, place)  # repetition: follows from the fixed size
            begin, place = place + 4, _after_levels(data, place)
            levels = _levels(data[begin:place], count, bits=2)
            values = count
            if levels is not None:
                empty = levels == _NULL_LIST
                if not np.all(empty | (levels == _VALUE)):
                    raise UnknownLayoutError
                (at,) = np.nonzero(empty)
                values = count - len(at)
                before = found + at - np.arange(len(at))  # values before each null list
                null_rows.append(_whole(before, self.width) + nulls + np.arange(len(at)))
                nulls += len(at)
            if stop - place != 2 * values:
                raise UnknownLayoutError
            flat[found : found + values] = np.frombuffer(data, "<f2", values, place)
            found += values
            place = stop
        if _whole(np.array([found]), self.width)[0] + nulls != self.rows:
            raise UnknownLayoutError
        return _spread(lists, np.concatenate(null_rows)) if nulls else lists


def _whole(values: np.ndarray, width: int) -> np.ndarray:
    if np.any(values % width):
        raise UnknownLayoutError
    rows: np.ndarray = values // width
    return rows


def _spread(lists: np.ndarray, null_rows: np.ndarray) -> np.ndarray:
    """Return the lists, which are at the beginning, in their places between null ones."""
    valid = np.ones(len(lists), dtype=bool)
    valid[null_rows] = False
    placed = np.full_like(lists, np.nan)
    placed[valid] = lists[: len(lists) - len(null_rows)]
    return placed


def _after_levels(data: bytes, place: int) -> int:
    return place + 4 + int.from_bytes(data[place : place + 4], "little")


def _levels(data: bytes, count: int, bits: int) -> np.ndarray | None:
    """Return levels (count,) of the RLE and bit-packing hybrid; None if all are ``_VALUE``."""
    parts: list[np.ndarray] = []
    place = total = 0
    while total < count:
        run, place = _varint(data, place)
        if run & 1:
            size = (run >> 1) * bits
            packed = np.frombuffer(data, np.uint8, size, place)
            digits = np.unpackbits(packed, bitorder="little").reshape(-1, bits)
            parts.append(digits @ (1 << np.arange(bits, dtype=np.uint8)).astype(np.uint8))
            place += size
            total += (run >> 1) * 8
        else:
            level, length = data[place], run >> 1
            if not parts and level == _VALUE and length == count:
                return None
            parts.append(np.full(min(length, count - total), level, dtype=np.uint8))
            place += 1
            total += length
    return np.concatenate(parts)[:count]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _struct(data: bytes, place: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a Thrift struct, by number, and the place after it."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[place]:
        place += 1
        number += kind >> 4
        if not kind >> 4:
            raw, place = _varint(data, place)
            number = _signed(raw)
        fields[number], place = _value(data, place, kind & 0x0F)
    return fields, place + 1


def _value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 1 | 2:
            return kind == 1, place
        case 3:
            return data[place], place + 1
        case 4 | 5 | 6:
            raw, place = _varint(data, place)
            return _signed(raw), place
        case 8:
            size, place = _varint(data, place)
            return data[place : place + size], place + size
        case 12:
            return _struct(data, place)
    raise UnknownLayoutError


def _signed(raw: int) -> int:
    return (raw >> 1) ^ -(raw & 1)


def find_plain_chunk(file: pq.ParquetFile, group: int, column: str) -> PlainChunk | None:
    """Return where a column's pages are in a row group; None if Arrow must read them.

    Args:
        file: The opened file.
        group: The row group.
        column: Name of the column.
    """
    kind = file.schema_arrow.field(column).type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float16():
        return None
    chunks = file.metadata.row_group(group)
    places = [
        place
        for place in range(chunks.num_columns)
        if chunks.column(place).path_in_schema.split(".")[0] == column
    ]
    if len(places) != 1:
        return None
    leaf, chunk = file.schema.column(places[0]), chunks.column(places[0])
    known = (
        chunk.compression == "UNCOMPRESSED"
        and not chunk.has_dictionary_page
        and chunk.physical_type == "FIXED_LEN_BYTE_ARRAY"
        and leaf.length == 2
        and (leaf.max_definition_level, leaf.max_repetition_level) == (_VALUE, 1)
    )
    if not known:
        return None
    return PlainChunk(
        chunk.data_page_offset, chunk.total_compressed_size, chunks.num_rows, kind.list_size
    )
