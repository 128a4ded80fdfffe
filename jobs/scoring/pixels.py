"""Decoded rows: what a decoder hands to a tower, in one process or through Ray's object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqa_core.columns import HEIGHT, WIDTH
from iqa_core.images.encoded import EncodedJpeg

from .stage_columns import PIXELS, TURN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    Image = np.ndarray[Any, np.dtype[np.uint8]]

__all__ = ["EncodedBlock", "PixelBlock", "Stack", "encoded_blocks", "pixel_blocks"]


@dataclass(frozen=True, eq=False)
class PixelBlock:
    """Rows with the pixels of those that could be decoded.

    Attributes:
        rows: N rows without pixels: identity, kept columns, ``status``, ``error``, size and measurements.
        places: (M,) positions of the rows that have pixels, ascending.
        pixels: (M x copies, H, W, 3) uint8, each image followed by its degraded copies; a list of
            (H, W, 3) arrays where each image has its own size, in which an image that is left encoded is
            (bytes,). Decoded on a device, they are a tensor there.
    """

    rows: pa.Table
    places: np.ndarray[Any, np.dtype[np.int64]]
    pixels: Image | Sequence[Image] | torch.Tensor

    def to_table(self) -> pa.Table:
        """Return the rows with a column of pixels, whose values are one buffer; null without pixels."""
        sizes = np.zeros(len(self.rows) + 1, dtype=np.int64)
        if isinstance(self.pixels, np.ndarray):
            values = np.ascontiguousarray(self.pixels).reshape(-1)
            sizes[self.places + 1] = values.size // max(1, len(self.places))
        else:
            values = np.concatenate(
                [np.empty(0, np.uint8), *(each.ravel() for each in self.pixels)]
            )
            sizes[self.places + 1] = [each.size for each in self.pixels]
        valid = np.zeros(len(self.rows), dtype=bool)
        valid[self.places] = True
        buffers = [
            pa.array(valid).buffers()[1],  # booleans are a bitmap in Arrow, as validity is
            pa.py_buffer(np.cumsum(sizes)),
            pa.py_buffer(values),
        ]
        column = pa.Array.from_buffers(pa.large_binary(), len(self.rows), buffers)
        return self.rows.append_column(PIXELS, column)


class Stack:
    """Images of one size in one array: each is copied there while the processor's cache has it.

    Args:
        size: Height and width.
        most: Images that there is room for at first; memory is taken as it fills.
    """

    def __init__(self, size: tuple[int, int], most: int) -> None:
        self._room = np.empty((max(1, most), *size, 3), np.uint8)
        self._count = 0

    def extend(self, images: Sequence[Image] | Image) -> None:
        """Append (H, W, 3) images, or (N, H, W, 3)."""
        begin, self._count = self._count, self._count + len(images)
        if self._count > len(self._room):
            larger = np.empty((2 * self._count, *self._room.shape[1:]), np.uint8)
            larger[:begin] = self._room[:begin]
            self._room = larger
        for place, image in enumerate(images, begin):
            self._room[place] = image

    def images(self) -> Image:
        """Return them, (N, H, W, 3) uint8, without a copy."""
        return self._room[: self._count]


@dataclass(frozen=True, eq=False)
class EncodedBlock:
    """Rows with images of which the device decodes some.

    Attributes:
        rows: As of :class:`PixelBlock`.
        places: Likewise.
        images: M encoded JPEGs, and arrays of the tower's size, (H, W, 3) uint8.
    """

    rows: pa.Table
    places: np.ndarray[Any, np.dtype[np.int64]]
    images: Sequence[EncodedJpeg | Image]


def pixel_blocks(table: pa.Table, size: tuple[int, int] | None) -> Iterator[PixelBlock]:
    """Yield the blocks that a table of :meth:`PixelBlock.to_table` consists of, without copying pixels.

    Args:
        table: One or several such tables in one.
        size: Height and width of all images; None where each has its own.
    """
    for rows, places, bounds, data in _parts(table):
        if size is not None:
            yield PixelBlock(rows, places, data[bounds[0] : bounds[-1]].reshape(-1, *size, 3))
            continue
        heights, widths = (rows.column(name).to_pylist() for name in (HEIGHT, WIDTH))
        images = [
            data[bounds[place] : bounds[place + 1]].reshape(heights[place], widths[place], 3)
            for place in places
        ]
        yield PixelBlock(rows, places, images)


def encoded_blocks(table: pa.Table, size: tuple[int, int]) -> Iterator[EncodedBlock]:
    """Yield the blocks that a table consists of whose decoders left JPEGs encoded, without copying.

    Args:
        table: One or several tables of :meth:`PixelBlock.to_table` in one, with a column ``TURN``.
        size: Height and width of the images that are decoded already.
    """
    for rows, places, bounds, data in _parts(table):
        names = (WIDTH, HEIGHT, TURN)
        widths, heights, turns = (rows.column(name).to_pylist() for name in names)
        images: list[EncodedJpeg | Image] = []
        for place in places:
            image = data[bounds[place] : bounds[place + 1]]
            if turns[place] is None:
                images.append(image.reshape(*size, 3))
            else:
                images.append(EncodedJpeg(image, widths[place], heights[place], turns[place]))
        yield EncodedBlock(rows.drop_columns([TURN]), places, images)


def _parts(table: pa.Table) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows, the places of those with images, and where in the last of the four images begin."""
    for batch in table.to_batches():
        rows = pa.Table.from_batches([batch]).drop_columns([PIXELS])
        column = batch.column(PIXELS)
        _, ends, values = column.buffers()
        bounds = np.frombuffer(ends, np.int64)[column.offset : column.offset + len(column) + 1]
        places = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        data = np.frombuffer(values, np.uint8) if values else np.empty(0, np.uint8)
        yield rows, places, bounds, data
