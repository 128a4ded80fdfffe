"""Tests of jobs/scoring/pixels.py: what goes into a table comes out of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from jobs.scoring.pixels import PixelBlock, Stack, pixel_blocks
from jobs.scoring.stage_columns import PIXELS


def rows(sizes):
    """Rows 0, 1, ... of these heights and widths; None has no pixels."""
    heights, widths = ([size and size[axis] for size in sizes] for axis in (0, 1))
    columns = {"manifest_row": list(range(len(sizes)))}
    columns |= {
        name: pa.array(x, pa.int32()) for name, x in (("height", heights), ("width", widths))
    }
    return pa.table(columns)


def images(sizes, copies=1):
    generator = np.random.default_rng(0)
    return [
        generator.integers(0, 256, (*size, 3), np.uint8)
        for size in sizes
        if size
        for _ in range(copies)
    ]


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("there", [[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], []])
def test_images_of_one_size(there, copies):
    sizes = [(4, 6) if each else None for each in there]
    places = np.flatnonzero(there)
    pixels = np.array(images(sizes, copies), np.uint8).reshape(-1, 4, 6, 3)
    table = PixelBlock(rows(sizes), places, pixels).to_table()
    assert table.column(PIXELS).null_count == len(there) - len(places)
    # Ray's actors get several blocks in one table, and parts of blocks.
    both = pa.concat_tables([table, table.slice(1), table.slice(0, 2)])
    found = list(pixel_blocks(both, (4, 6)))
    assert sum(len(block.rows) for block in found) == len(both)
    assert PIXELS not in found[0].rows.column_names if found else not there
    values = iter(np.split(pixels.reshape(-1, 4, 6, 3), max(1, len(places))) * 3)
    by_row = {int(place): next(values) for place in places}
    for block in found:
        assert isinstance(block.pixels, np.ndarray)
        assert block.pixels.shape == (len(block.places) * copies, 4, 6, 3)
        numbers = block.rows.column("manifest_row").to_pylist()
        each = block.pixels.reshape(len(block.places), copies, 4, 6, 3)
        for place, own in zip(block.places, each, strict=True):
            np.testing.assert_array_equal(own, by_row[numbers[place]])


def test_pixels_of_one_size_are_not_copied():
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    table = PixelBlock(rows([(4, 6)] * 2), np.arange(2), pixels).to_table()
    (block,) = pixel_blocks(table, (4, 6))
    assert np.shares_memory(block.pixels, pixels)


def test_images_of_their_own_sizes():
    sizes = [(2, 3), None, (5, 1), (2, 3), None]
    own = images(sizes)
    table = PixelBlock(rows(sizes), np.array([0, 2, 3]), own).to_table()
    first, second = pixel_blocks(pa.concat_tables([table, table.slice(2)]), None)
    assert first.places.tolist() == [0, 2, 3]
    assert second.places.tolist() == [0, 1]
    for found, wanted in zip([*first.pixels, *second.pixels], [*own, *own[1:]], strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("most", [0, 2, 7, 100])
def test_a_stack_holds_more_than_it_has_room_for_at_first(most):
    first, views, last = (images([(4, 6)] * count) for count in (1, 4, 2))
    stack = Stack((4, 6), most)
    assert stack.images().shape == (0, 4, 6, 3)
    stack.extend(first)
    stack.extend(np.array(views))
    stack.extend([])
    stack.extend(last)
    assert stack.images().dtype == np.uint8
    assert stack.images().flags.c_contiguous
    np.testing.assert_array_equal(stack.images(), np.array(first + views + last))
