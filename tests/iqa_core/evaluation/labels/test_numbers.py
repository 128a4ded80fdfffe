"""Tests of labels/numbers.py: what cells of spreadsheets mean, and which columns are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.evaluation.labels.numbers import is_missing, parse_numbers

NAN = float("nan")


def parse(*cells, **options):
    return parse_numbers(pa.chunked_array([cells], pa.string()), "column 'q'", **options)


def refused(text, *cells, **options):
    with pytest.raises(InputError, match=text) as raised:
        parse(*cells, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (
            ["3.5", "4", "-0.25", "+1", "1e-3", " 7 ", ".5", "2."],
            [3.5, 4, -0.25, 1, 1e-3, 7, 0.5, 2],
        ),
        (["007", "0"], [7, 0]),
        (["3.125", "4.250"], [3.125, 4.25]),  # three decimals of a point are decimals
        (["0.1", "0.30000000000000004"], [0.1, 0.30000000000000004]),
        (["12345678901234567890"], [12345678901234567890.0]),
    ],
)
def test_plain_numbers_need_no_note(cells, values):
    parsed = parse(*cells)
    assert parsed.values.tolist() == values
    assert parsed.notes == []


@pytest.mark.parametrize(
    "cell",
    [
        *("N/A", "n/a", "#N/A", "NA", "NaN", "null", "None", "none", "-", "--", "\u2013", "\u2014"),
        *("\u2212", "?", ".", "n.a.", "#DIV/0!", "#VALUE!", "#REF!", "<NA>", " - ", "\u00a0"),
        *("(blank)", "\\N", "inf"),
    ],
)
def test_words_for_no_value_are_missing_and_counted(cell):
    assert is_missing(cell)
    parsed = parse("1", cell, None, "2", cell)
    np.testing.assert_array_equal(parsed.values, [1, NAN, NAN, 2, NAN])
    assert parsed.notes == [f"column 'q': 2 cells read as missing: {cell.strip()!r} (2)"]


def test_a_column_without_any_value_is_missing():
    assert np.isnan(parse(None, None).values).all()
    assert np.isnan(parse("-", "n/a").values).all()
    assert len(parse().values) == 0


@pytest.mark.parametrize(
    ("cells", "values", "read"),
    [
        (["3,5", "4", "2,75"], [3.5, 4, 2.75], "'3,5' as 3.5"),
        (["0,125", "1,234"], [0.125, 1.234], "'1,234' as 1.234"),  # no thousands begin with 0
        (["1.234,5", "999"], [1234.5, 999], "'1.234,5' as 1234.5"),
        (["1 234,5", "999,25"], [1234.5, 999.25], "'1 234,5' as 1234.5"),
        (["\u22123,5", "\uff11,\uff15"], [-3.5, 1.5], "as -3.5"),
        (["1,5E-02"], [0.015], "'1,5E-02' as 0.015"),
    ],
)
def test_decimal_commas(cells, values, read):
    parsed = parse(*cells)
    assert parsed.values.tolist() == values
    assert "decimal commas" in parsed.notes[0]
    assert read in parsed.notes[0]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1,234.5", "2,000"], [1234.5, 2000]),
        (["1,234,567", "1,000"], [1234567, 1000]),
        (["12,34,567", "1,000"], [1234567, 1000]),
        (["1.234.567", "2.000"], [1234567, 2000]),
        (["1 234", "2 345 678"], [1234, 2345678]),
        (["1\u00a0234", "1\u202f234", "1\u2009234"], [1234, 1234, 1234]),
        (["1'234.5", "1\u2019234"], [1234.5, 1234]),
        (["1,234", "850.5"], [1234, 850.5]),  # the point decides it for the whole column
    ],
)
def test_thousands_separators(cells, values):
    parsed = parse(*cells)
    assert parsed.values.tolist() == values
    assert "read with thousands separators, such as" in parsed.notes[-1]


def test_a_column_that_could_be_read_in_two_ways_is_refused():
    refused(
        "column 'q' has 2 numbers that can be read in two ways, such as '1,234', which is 1234 or 1.234:",
        "1,234",
        "5",
        "2,500",
    )
    refused("has 1 number that can be read in two ways, such as '3,125'", "3,125", "4.25", "1")
    refused("has 1 number that can be read in two ways, such as '3.125'", "3.125", "4,25", "1")
    refused("decimal point, such as '3.5', and with a decimal comma, such as '3,5'", "3.5", "3,5")


def test_a_semicolon_decides_only_where_the_order_is_the_same_either_way():
    parsed = parse("1,234", "2,345", None, "-", has_semicolons=True)
    assert parsed.values[:2].tolist() == [1.234, 2.345]
    assert "2 numbers read with decimal commas, such as '1,234' as 1.234" in parsed.notes[0]
    refused("can be read in two ways", "1,234", "999", has_semicolons=True)
    refused("such as '1.250', which is 1.25 or 1250", "850", "1.250", has_semicolons=True)
    assert parse("3.125", "4.250", has_semicolons=True).values.tolist() == [3.125, 4.25]
    assert parse("850", "1.250").values.tolist() == [850, 1.25]


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        (
            ["85%", "90 %", "1"],
            "2 of 3 cells are no number, such as '85%', '90 %': remove the percent",
        ),
        (
            ["3 dB", "4"],
            "1 of 2 cells are no number, such as '3 dB': write numbers alone, without units",
        ),
        (["4/5"], "'4/5': write numbers alone"),
        (["3.5±0.2"], "write numbers alone"),
        (["good", "3"], "'good': name another column with label_column"),
        (["TRUE"], "'TRUE': name another"),
        (["1,23,4"], "no number"),
        (["1 23"], "no number"),
        (["1.234 567"], "no number"),
        (["03.05.2024"], "no number"),
        (["3³"], "no number"),  # a footnote is no digit
        (["0x10"], "no number"),
        (["x" * 99], "'x{37}\\.\\.\\.'"),
    ],
)
def test_what_is_no_number_is_refused_with_examples(cells, text):
    refused(f"column 'q' is string, but labels must be numbers, .*{text}", *cells)
