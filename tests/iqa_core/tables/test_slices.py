"""Tests of iqa_core/tables/slices.py: every row that is not done is in one slice."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyroaring import BitMap

from iqa_core.storage.folder import Folder
from iqa_core.tables import slices
from iqa_core.tables.manifest import Manifest, ManifestFile
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices, small_first

MEGABYTE = 1024 * 1024


def manifest(*row_groups, group_bytes=()):
    file = ManifestFile("a", 1, row_groups, "digest", group_bytes, "stamp")
    return Manifest("m", Folder.of("memory://m"), (file,), pa.schema([("uri", pa.string())]))


def planned(opened, done=None):
    """Return the groups and the wanted rows of each slice."""
    return [
        (part.group, part.stop_group, part.first, list(BitMap.deserialize(part.wanted)))
        for part in plan_slices(opened, done or RowSet())
    ]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(slices, "_ROWS_PER_SLICE", 10)


def test_small_row_groups_are_read_together():
    assert planned(manifest(4, 4, 4)) == [(0, 2, 0, list(range(8))), (2, 3, 8, list(range(8, 12)))]


def test_large_row_groups_are_split():
    assert planned(manifest(25)) == [
        (0, 1, 0, list(range(10))),
        (0, 1, 0, list(range(10, 20))),
        (0, 1, 0, list(range(20, 25))),
    ]


def test_many_bytes_are_a_slice_of_their_own():
    sizes = (200 * MEGABYTE, 100 * MEGABYTE, 1)
    assert [row[:2] for row in planned(manifest(2, 2, 2, group_bytes=sizes))] == [(0, 1), (1, 3)]


@pytest.mark.parametrize("groups", [(3, 0, 12, 1, 30), (0,), (), (10, 10), (11, 9, 1)])
def test_every_row_is_wanted_once(groups):
    wanted = [row for *_, rows in planned(manifest(*groups)) for row in rows]
    assert wanted == list(range(sum(groups)))


def test_what_is_done_is_left_out():
    done = RowSet()
    rows = pa.array([0, 1, 2, 3, 5, *range(8, 12)])
    done.add(pa.table({"manifest_file": ["a"] * len(rows), "manifest_row": rows}))
    assert planned(manifest(4, 4, 4), done) == [(0, 2, 0, [4, 6, 7])]


def test_a_slice_knows_which_content_was_planned_for():
    (part,) = plan_slices(manifest(1), RowSet())
    assert (part.file, part.digest, part.stamp) == ("a", "digest", "stamp")


def divided(part, *arguments):
    pieces = small_first(part, *arguments)
    assert {(piece.file, piece.group, piece.stop_group, piece.first) for piece in pieces} == {
        (part.file, part.group, part.stop_group, part.first)
    }
    return [list(BitMap.deserialize(piece.wanted)) for piece in pieces]


@pytest.mark.parametrize(
    ("rows", "pieces", "within", "expected"),
    [
        (2, 2, 10, [[0, 1], [2, 3], [4, 5, 6, 7]]),
        (2, 0, 10, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (2, 9, 10, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (3, 2, 5, [[0, 1, 2], [3, 4, 5, 6, 7]]),  # a second one would end at the sixth row
        (8, 2, 10, [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_small_pieces_are_taken_off_the_front(rows, pieces, within, expected):
    (part,) = plan_slices(manifest(4, 4), RowSet())
    assert divided(part, rows, pieces, within) == expected


def test_small_pieces_have_wanted_rows_only_and_lie_at_the_front_of_what_is_read():
    done = RowSet()
    done.add(pa.table({"manifest_file": ["a"] * 3, "manifest_row": [0, 2, 3]}))
    first, second = plan_slices(manifest(8, 8), done)
    assert divided(first, 2, 2, 8) == [[1, 4], [5, 6], [7]]
    assert divided(second, 2, 2, 8) == [[8, 9], [10, 11], [12, 13, 14, 15]]
    late = list(plan_slices(manifest(25), RowSet()))[1]  # its rows begin at the tenth of its group
    assert divided(late, 2, 2, 8) == [list(range(10, 20))]
