"""Tests of iqa_core/tables/text_types.py."""

from __future__ import annotations

import pyarrow as pa
import pytest

from iqa_core.tables.text_types import plain_types


class TestPlainTypes:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (["1", "-20", " 0 "], [1, -20, 0]),
            (["9223372036854775807", None], [2**63 - 1, None]),
            (["1.50", "-0.25", "3"], [1.5, -0.25, 3.0]),
            (["1e-05", "2.5e+10"], [1e-05, 2.5e10]),
            (["1", "NA", "-", "#N/A", None], [1, None, None, None, None]),
            (["TRUE", "FALSE", None], [True, False, None]),
            (["true", "NaN"], [True, None]),
        ],
    )
    def test_what_is_plainly_written(self, values, expected):
        table = plain_types(pa.table({"x": pa.array(values, pa.string())}))
        assert table["x"].to_pylist() == expected
        assert table["x"].type != pa.string()

    @pytest.mark.parametrize(
        "values",
        [
            ["00012", "7"],
            ["12e4", "13e5"],
            ["9223372036854775808", "1"],
            ["1234567890123456", "1.5"],  # as float64 the first would be rounded
            ["3,5", "4,5"],
            ["1,200", "3"],
            ["+1", "2"],
            ["1_000", "2"],
            ["0x10", "1"],
            ["inf", "1"],
            ["1", "two"],
            ["true", "no"],
            ["True", "FALSE"],
            ["2024-01-31", "2024-02-01"],
            ["NA", "NA"],
            ["", None],
            [None, None],
        ],
    )
    def test_all_else_stays_text(self, values):
        column = pa.array(values, pa.string())
        assert plain_types(pa.table({"x": column}))["x"].combine_chunks() == column

    def test_columns_that_are_to_stay_text_do(self):
        table = plain_types(pa.table({"id": ["1"], "x": ["1"], "y": [2.5]}), {"id"})
        assert table.to_pydict() == {"id": ["1"], "x": [1], "y": [2.5]}
