"""Tests of iqa_core/evaluation/labels/columns.py: columns by name, ids, numbers by type, conditions."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.evaluation.labels.columns import (
    category_texts,
    find_column,
    find_id_columns,
    fulfils,
    read_numbers,
)


def test_a_column_is_found_by_its_name_or_by_the_only_one_that_is_alike():
    assert find_column(["MOS", "mos"], "mos") == ("mos", "")
    assert find_column(["a", "MOS "], "mos") == ("MOS ", "column 'MOS ' is taken for 'mos'")
    assert find_column(["\ufeffMean Opinion-Score"], "mean_opinion_score")[0] != ""
    assert find_column(["GRO\u00dfE"], "gro\u00dfe")[0] == "GRO\u00dfE"
    assert find_column(["MOS", "Mos"], "mos") == ("", "")
    assert find_column(["dmos"], "mos") == ("", "")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["image_id", "filename"], ["image_id", "filename"]),
        (["Image name", "mos"], ["Image name"]),
        (["id", "FileName"], ["FileName"]),
        (["id", "mos"], ["id"]),
        (["url", "uri", "path"], ["uri", "path", "url"]),
        (["ImageID"], ["ImageID"]),
        (["stimulus", "mos"], []),
    ],
)
def test_columns_of_ids(names, found):
    assert find_id_columns(pa.table({name: ["x"] for name in names})) == found


def test_empty_columns_and_images_hold_no_ids():
    table = pa.table({"image_id": pa.nulls(1), "image": [b"x"], "file": [[1]], "name": ["a"]})
    assert find_id_columns(table) == ["name"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, None], pa.uint8()),
        pa.array([1.0, 2.0, float("inf")]),
        pa.array([1, 2, None], pa.float16()),
        pa.array([decimal.Decimal("1.0"), decimal.Decimal("2.0"), None]),
        pa.array(["1", "2", "N/A"]),
        pa.array(["1,0", "2,0", None]),
    ],
)
def test_numbers_of_every_type(column):
    values, _ = read_numbers(pa.table({"q": column}), "q", "T")
    np.testing.assert_array_equal(values, [1, 2, np.nan])


def test_a_column_of_nulls_has_no_labels():
    assert np.isnan(read_numbers(pa.table({"q": pa.nulls(2)}), "q", "T")[0]).all()


@pytest.mark.parametrize("column", [pa.array([True]), pa.array([1], pa.date32())])
def test_types_that_are_no_numbers(column):
    with pytest.raises(
        InputError, match=r"column 'q' of T is .*, but labels must be numbers, empty"
    ):
        read_numbers(pa.table({"q": column}), "q", "T")


def rows(column, value):
    return np.flatnonzero(fulfils(pa.chunked_array([column]), value)).tolist()


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        (pa.array(["test", "train", None, " test"]), "test", [0, 3]),
        (pa.array(["test", "Test"]), "test", [0]),
        (pa.array([True, False, None]), "true", [0]),
        (pa.array([True, False, None]), "1", [0]),
        (pa.array([True, False, None]), "No", [1]),
        (pa.array(["TRUE", "FALSE", "yes", "0"]), "True", [0, 2]),
        (pa.array(["TRUE", "FALSE", "yes", "0"]), "n", [1, 3]),
        (pa.array([1, 0, 1]), "true", [0, 2]),
        (pa.array([1, 0, 2]), "true", []),  # levels, no truth values
        (pa.array(["yes", "no", "maybe"]), "true", []),
        (pa.array([3, 4]), "3.0", [0]),
        (pa.array([3.0, 3.5]), "3", [0]),
        (pa.array(["3", "3.0", "4"]), "3", [0, 1]),
        (pa.array(["003", "3"]), "3", [1]),  # a code, no number
        (pa.array([decimal.Decimal("3.00")]), "3", [0]),
        (pa.array(["3,5"]), "3,5", [0]),
        (pa.array([1, 2]), "nothing", []),
        (pa.array(["a"]).dictionary_encode(), "a", [0]),
        (pa.nulls(2), "a", []),
    ],
)
def test_rows_that_fulfil_a_condition(column, value, wanted):
    assert rows(column, value) == wanted


def test_categories_of_files_of_text_are_those_of_their_numbers():
    column = pa.chunked_array([["3", "3.0", " 4 ", "-", None]])
    assert category_texts(column, is_text=True).to_pylist() == ["3", "3", "4", None, None]
    assert category_texts(column, is_text=False).to_pylist() == ["3", "3.0", "4", "-", None]
    words = pa.chunked_array([["none", "NA", "blur "]])  # Namibia, and no distortion
    assert category_texts(words, is_text=True).to_pylist() == ["none", "NA", "blur"]
