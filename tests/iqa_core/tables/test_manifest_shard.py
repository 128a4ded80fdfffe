"""Tests of iqa_core/tables/manifest_shard.py: each row is in one shard, whatever the manifest's form."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.manifest import Manifest, ManifestFile
from iqa_core.tables.manifest_shard import Shard, places_of, ranges_of


def shards_of(row_groups, count):
    return [ranges_of(row_groups, Shard(index, count)) for index in range(count)]


def every_row(row_groups):
    return [(file, row) for file, groups in enumerate(row_groups) for row in range(sum(groups))]


def random_groups(seed):
    draw = random.Random(seed)
    return [
        tuple(draw.choice((0, 1, 7, 100, 1000)) for _ in range(draw.randrange(4)))
        for _ in range(draw.randrange(1, 9))
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 5000])
@pytest.mark.parametrize("seed", range(6))
def test_each_row_is_in_one_shard_in_order(seed, count):
    row_groups = random_groups(seed)
    rows = [
        (file, row)
        for ranges in shards_of(row_groups, count)
        for file, numbers in enumerate(ranges)
        for row in numbers
    ]
    assert rows == every_row(row_groups)


def test_shards_are_of_equal_size():
    sizes = [sum(map(len, ranges)) for ranges in shards_of([(100, 3), (1,), (900,)], 7)]
    assert max(sizes) - min(sizes) <= 0.1 * 1004 / 7 + 1


def test_a_cut_near_a_row_group_is_made_there():
    (first,), (second,) = shards_of([(98, 102)], 2)
    assert (first, second) == (range(98), range(98, 200))
    (first,), (second,) = shards_of([(80, 120)], 2)  # too far away
    assert (first, second) == (range(100), range(100, 200))


def test_a_manifest_without_rows_has_empty_shards():
    assert shards_of([(), (0,)], 2) == [[range(0), range(0)]] * 2


@pytest.mark.parametrize("text", ["0/1", "7/8", " 3/16 "])
def test_a_shard_is_named_from_zero(text):
    shard = Shard.of(text)
    assert str(shard) == f"shard {text.strip()}"
    assert 0 <= shard.index < shard.count


@pytest.mark.parametrize("text", ["8/8", "1/0", "0/0", "-1/4", "1", "a/b", "1/2/3", "", "1.0/2"])
def test_what_names_no_shard_is_refused(text):
    with pytest.raises(
        InputError, match=r"must be K/N with 0 <= K < N, counted from 0.*0/8 to 7/8"
    ):
        Shard.of(text)


def test_labels_sort_like_shards():
    assert [Shard(index, 12).label for index in (2, 10)] == ["0002-of-0012", "0010-of-0012"]


def test_places_are_of_the_first_row_and_after_the_last():
    assert places_of("abc", [range(5), range(8), range(2)]) == (("a", 0), ("c", 2))
    assert places_of("abc", [range(5, 5), range(3, 8), range(0)]) == (("b", 3), ("b", 8))
    assert places_of("abc", [range(0)] * 3) == (("", 0), ("", 0))


def manifest(*row_groups):
    files = tuple(
        ManifestFile(f"{place}.parquet", 1, groups) for place, groups in enumerate(row_groups)
    )
    return Manifest("m", Folder.of("memory://m"), files, pa.schema([("uri", pa.string())]))


class TestManifestOfAShard:
    def test_it_has_the_shard_s_rows_and_all_files(self):
        whole = manifest((100,), (100, 100))
        part = whole.only(Shard(1, 3))
        assert [file.wanted for file in part.files] == [range(0), range(100)]
        assert (whole.rows, part.rows) == (300, 100)
        assert part.plan() == whole.plan()
        assert whole.only(None) is whole

    def test_claims_of_different_shards_do_not_overlap(self):
        whole = manifest((10, 90), (7,), (), (200,))
        claims = [whole.only(Shard(index, 9)).claim("x") for index in range(9)]
        for place, claim in enumerate(claims):
            assert claim.conflicts(claim)
            assert claim.conflicts(whole.claim("x"))
            assert not any(claim.conflicts(other) for other in claims[:place])

    def test_claims_of_another_number_of_shards_overlap_where_rows_do(self):
        whole = manifest((100,), (100,))
        half, quarters = (
            whole.only(Shard(0, 2)).claim(),
            [whole.only(Shard(index, 4)).claim() for index in range(4)],
        )
        assert [half.overlaps(quarter) for quarter in quarters] == [True, True, False, False]

    def test_an_empty_shard_keeps_nobody_out(self):
        whole = manifest((1,))
        empty = [whole.only(Shard(index, 3)) for index in range(3)]
        claims = [shard.claim() for shard in empty if not shard.rows]
        assert len(claims) == 2
        assert not any(claim.overlaps(whole.claim()) for claim in claims)
