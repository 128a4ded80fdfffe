"""Tests of iqa_core/tables/foreign/lists.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.foreign.lists import ListFile, matrix_of

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def fixed(rows):
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


FORMS = {
    "fixed": fixed(ROWS),
    "half": fixed(ROWS.astype(np.float16)),
    "list": pa.array(list(ROWS), pa.list_(pa.float32())),
    "large": pa.array(list(ROWS), pa.large_list(pa.float64())),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_list_type_is_read_in_slices(tmp_path, form):
    table = pa.table({"uri": ["x"] * 40, "features": FORMS[form]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=9)
    found = ListFile.of(Folder.of(str(tmp_path)), "a.parquet", None)
    assert (found.shape, found.column) == ((40, 4), "features")
    slices = found.slices()
    rows = np.concatenate([slices.take(count)() for count in (1, 30, 9)])
    assert rows.dtype == found.dtype
    np.testing.assert_array_equal(rows, ROWS.astype(rows.dtype))


def test_rows_without_features_are_nan():
    lists = [[1, 0], None, [1], [0, None], [0, 1]]
    found = matrix_of(pa.array(lists, pa.list_(pa.float32())), 2)
    nan = np.nan
    wanted = [[1, 0], [nan, nan], [nan, nan], [0, nan], [0, 1]]
    np.testing.assert_array_equal(found, np.array(wanted, np.float32))
    flat = pa.array([1, 0, 9, 9, 0, 1], pa.float16())
    holes = pa.FixedSizeListArray.from_arrays(flat, 2, mask=pa.array([False, True, False]))
    np.testing.assert_array_equal(matrix_of(holes, 2), np.array([[1, 0], [nan, nan], [0, 1]]))


def test_a_column_that_is_no_list_of_floats_is_refused(tmp_path):
    table = pa.table({"a": FORMS["fixed"], "b": FORMS["list"], "caption": ["x"] * 40})
    pq.write_table(table, tmp_path / "a.parquet")
    folder = Folder.of(str(tmp_path))
    with pytest.raises(InputError, match=r"has 2 columns of float lists \(a, b\): name that of"):
        ListFile.of(folder, "a.parquet", None)
    with pytest.raises(InputError, match=r"features_column caption of .* is string, but features"):
        ListFile.of(folder, "a.parquet", "caption")
    with pytest.raises(InputError, match=r"features_column c of .* is not there"):
        ListFile.of(folder, "a.parquet", "c")
