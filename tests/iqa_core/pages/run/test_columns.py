"""Tests of iqa_core/pages/run/columns.py, on part files written here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.iqa_core.pages.run.runs import ok


def test_kept_columns(make):
    rows = [
        ok(i, 0.9 - 0.1 * level, distortion=kind, level=level, photo=f"p{i}", flag=True)
        for i, (kind, level) in enumerate((k, lv) for k in ("blur", "dark") for lv in range(1, 6))
    ]
    rows += [ok(10 + i, 0.9, distortion=None, level=0, photo=f"q{i}", flag=None) for i in range(25)]
    names = [("distortion", pa.string()), ("level", pa.int16())]
    _, page = make(rows, [*names, ("photo", pa.string()), ("flag", pa.bool_())])
    assert "blur5\N{MINUS SIGN}1.000" in page.text  # images, then the correlation
    assert "Score by distortion" in page.text
    assert "(null)25" in page.text
    assert "Column photo: 35 values, each in one row" in page.text
    assert "true10" in page.text


def test_frequent_values_of_a_column_with_many(make):
    rows = [ok(i, i / 100, f"{i}.jpg", camera=f"c{min(i, 40)}") for i in range(100)]
    _, page = make(rows, [("camera", pa.string())])
    assert "Score by camera: the 30 most frequent of 41 values" in page.text
    assert "c4060" in page.text  # the value, and its images


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1e-9 * i for i in range(50)], "mean 2.45e\N{MINUS SIGN}08"),
        ([3] * 50, "mean 3, median 3"),
        ([i * 1e6 for i in range(50)], "mean 2.45e+07"),
        ([None] * 49 + [2.5], "mean 2.5, median 2.5"),
    ],
    ids=["tiny", "constant", "huge", "one"],
)
def test_distributions_of_numeric_columns(make, values, text):
    rows = [ok(i, i / 50, f"{i}.jpg", size=v) for i, v in enumerate(values)]
    _, page = make(rows, [("size", pa.float64())], thumbnails=0)
    assert "Distributions of the numeric columns" in page.text
    assert text in page.text


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (pa.int64(), [1_700_000_000_000_000_000], "median 1.7e+18"),
        (pa.int64(), [2**62, 2**62 + 1], "median 4.612e+18"),
        (pa.int64(), [-(2**63), 2**63 - 1], "Distributions"),
        (pa.uint64(), [2**63 + 5, 2**63], "median 9.223e+18"),
        (pa.uint64(), [2**64 - 1, 0], "Distributions"),
        (pa.int64(), [2**50, 2**50 + 3], "median 1.126e+15"),
        (pa.float64(), [1e16, 1e16 + 2, 1e16 + 4], "median 1e+16"),
        (pa.float64(), [1e308, -1e308], "Distributions"),
        (pa.float64(), [1e308, 1.1e308], "mean 1.05e+308"),
        (pa.float64(), [np.finfo(float).max] * 2, "mean 1.798e+308, median 1.798e+308"),
        (pa.float64(), [5e-324, 1e-323], "Distributions"),
        (pa.float64(), [1e-320, np.inf, np.nan], "Distributions"),
        (pa.float64(), [np.inf, np.nan], "Rank correlation"),
    ],
)
def test_no_column_of_numbers_costs_the_page(make, kind, values, text):
    rows = [ok(i, i / 50, f"{i}.jpg", size=values[i % len(values)]) for i in range(50)]
    _, page = make(rows, [("size", kind)], thumbnails=0)
    assert text in page.text
    assert len(page.text) < 20_000
