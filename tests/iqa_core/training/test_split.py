"""Tests of iqa_core/training/split.py: which row is trained on, which is held out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from iqa_core.columns import VIEW_LEVELS, VIEWS
from iqa_core.errors import InputError
from iqa_core.tables.feature_cache import feature_column, features_of
from iqa_core.training.split import plan_training_data
from iqa_core.training.write import write_training_data
from tests.iqa_core.training.rows import (
    PAIRS,
    ROWS,
    WIDTH,
    write_cache,
    written,
)


def test_the_order_of_the_part_files_changes_nothing(table, data, prompts, tmp_path):
    turned = table.take(list(range(ROWS - 1, -1, -1)))
    other = written(
        write_cache(tmp_path / "f", turned, 77), str(tmp_path / "d"), prompts, holdout=0.2
    )
    for here, there in ((data.train(), other.train()), (data.held_out(), other.held_out())):
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_allclose(here[1], there[1], rtol=1e-7)  # products of other shapes
    assert dataclasses.replace(other, folder="", watched=("mos",)) == dataclasses.replace(
        data, folder=""
    )


def test_rows_that_share_a_value_are_on_one_side(cache, table, prompts, tmp_path):
    split = written(
        cache, str(tmp_path), prompts, holdout=0.3, holdout_by="photo", teacher="per-pair"
    )
    assert split.held_out()[1].shape == (split.held_out_rows, len(PAIRS))
    photo = dict(
        zip(
            (row.astype(np.float16).tobytes() for row in features_of(table)),
            table.column("photo").to_pylist(),
            strict=True,
        )
    )
    trained = {photo[row.tobytes()] for row in split.train()[0]}
    held_out = {photo[row.tobytes()] for row in split.held_out()[0]}
    assert trained
    assert held_out
    assert not trained & held_out


def test_rows_without_the_column_are_left_out(cache, prompts, tmp_path):
    column = written(cache, str(tmp_path), prompts, teacher="column:mos")
    assert column.unused == 8 + 20
    assert np.isfinite(column.train()[1]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"teacher": "best"}, "--teacher best must be ensemble, per-pair or column:NAME"),
        (
            {"teacher": "column:dmos"},
            "--teacher column:dmos must be a column that was kept with the features (mos, photo): run "
            "`iqa embed` with --keep dmos",
        ),
        ({"watch": ["photo"]}, "--watch photo must be a numeric column, not one of type string"),
        ({"watch": ["size"]}, "--watch size must be a column that was kept with the features"),
        ({"holdout_by": "group"}, "--holdout-by group must be a column that was kept"),
        (
            {"holdout": 0.001},
            "--holdout 0.001 must be large enough to hold out 8 rows, not only 1 of 392: raise it",
        ),
    ],
)
def test_unusable_data(cache, prompts, tmp_path, options, text):
    with pytest.raises(InputError) as raised:
        written(cache, str(tmp_path / "data"), prompts, **options)
    assert text in raised.value.on_command_line()
    assert not (tmp_path / "data").exists()


def test_each_usable_row_has_one_place(cache):
    plan = plan_training_data(cache, 3, holdout=0.2)
    train, held_out = plan.rows.train, plan.rows.held_out
    status = pa.concat_tables(plan.rows.cache.tables(["status"])).column("status").to_pylist()
    assert len(status) == ROWS
    assert ((train >= 0) | (held_out >= 0)).tolist() == [one == "ok" for one in status]
    assert not ((train >= 0) & (held_out >= 0)).any()
    assert sorted(train[train >= 0]) == list(range(plan.data.rows))
    assert sorted(held_out[held_out >= 0]) == list(range(plan.data.held_out_rows))
    assert (train[train < 0] == -1).all()
    assert (held_out[held_out < 0] == -1).all()


def test_a_large_cache_is_read_in_part(cache, prompts, tmp_path, monkeypatch):
    """Part files until there are a few times the rows that are used; the same ones each time."""
    monkeypatch.setattr("iqa_core.training.split.MAX_HELD_OUT", 20)
    plan = plan_training_data(cache, 3, holdout=0.2, most_rows=20)
    assert len(plan.rows.cache.parts) == 2 < len(cache.parts)
    assert plan.data.rows == 20
    assert 8 <= plan.data.held_out_rows <= 20
    again = plan_training_data(cache, 3, holdout=0.2, most_rows=20)
    np.testing.assert_array_equal(again.rows.train, plan.rows.train)
    data = write_training_data(cache, plan, str(tmp_path), prompts)
    assert len(data.train().features) == 20


def test_a_column_can_fall_with_quality(cache, prompts, tmp_path):
    up, down = (
        written(
            cache, str(tmp_path / str(lower)), prompts, teacher="column:mos", lower_is_better=lower
        )
        for lower in (False, True)
    )
    np.testing.assert_array_equal(up.train().targets, -down.train().targets)


def test_nearly_equal_rows_are_not_on_both_sides(table, prompts, tmp_path):
    """Each row once more, as if its image had been encoded again."""
    again = table.set_column(1, "manifest_row", pa.array(range(ROWS, 2 * ROWS), pa.int64()))
    cache = write_cache(tmp_path / "cache", pa.concat_tables([table, again]))
    data = written(cache, str(tmp_path / "data"), prompts, holdout=0.2)
    assert data.near_duplicates > 40
    trained = {row.tobytes() for row in data.train().features}
    assert not trained & {row.tobytes() for row in data.held_out().features}


def test_near_copies_of_held_out_images_lend_no_degraded_copies(table, prompts, tmp_path):
    """What decides is measured on images whose like was not trained on."""
    rows = table.filter(pc.equal(table.column("status"), "ok"))
    views = np.random.default_rng(1).normal(size=(len(rows), 2 * WIDTH)).astype(np.float32)
    levels = pa.array([[2, 5]] * len(rows), pa.list_(pa.int8(), 2))
    rows = rows.append_column(VIEWS, feature_column(views)).append_column(VIEW_LEVELS, levels)
    again = rows.set_column(1, "manifest_row", pa.array(range(ROWS, ROWS + len(rows)), pa.int64()))
    cache = write_cache(tmp_path / "cache", pa.concat_tables([rows, again]))
    data = written(cache, str(tmp_path / "data"), prompts, holdout=0.2)
    measured = {row[0].tobytes() for row in np.asarray(data.measured_bases()[0].features)}
    trained = {row[0].tobytes() for row in np.asarray(data.train_bases().features)}
    assert len(measured) > 40
    assert data.bases == len(data.train_bases().levels) > 300
    assert not trained & measured


def test_nulls_in_other_rows_change_no_side(table, tmp_path):
    numbers = [None if row % 97 == 96 else row // 4 for row in range(ROWS)]
    place = table.schema.get_field_index("photo")
    cache = write_cache(tmp_path, table.set_column(place, "photo", pa.array(numbers)), 50)
    rows = plan_training_data(cache, 3, holdout=0.3, holdout_by="photo").rows
    named = pa.concat_tables(rows.cache.tables(["photo"])).column("photo").to_pylist()
    groups = dict(zip(named, rows.groups.tolist(), strict=True))
    assert [groups[name] for name in named] == rows.groups.tolist()


def test_whole_numbers_are_equal_whatever_their_type(table, tmp_path):
    numbers = pa.array([row // 4 for row in range(ROWS)])
    place = table.schema.get_field_index("photo")
    groups = [
        plan_training_data(
            write_cache(tmp_path / str(kind), table.set_column(place, "photo", numbers.cast(kind))),
            3,
            holdout=0.3,
            holdout_by="photo",
        ).rows.groups
        for kind in (pa.int64(), pa.int16(), pa.float64())
    ]
    np.testing.assert_array_equal(groups[0], groups[1])
    np.testing.assert_array_equal(groups[0], groups[2])


def test_columns_that_no_training_can_use(table, tmp_path):
    lists = table.append_column("tags", pa.array([["a"]] * ROWS))
    with pytest.raises(InputError, match=r"tags.* must be a column of single values"):
        plan_training_data(write_cache(tmp_path / "a", lists), 3, holdout_by="tags")
    place = table.schema.get_field_index("mos")
    constant = table.set_column(place, "mos", pa.array(np.ones(ROWS)))
    with pytest.raises(InputError, match=r"column:mos.* must be a column whose values differ"):
        plan_training_data(write_cache(tmp_path / "b", constant), 3, teacher="column:mos")
