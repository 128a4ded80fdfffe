"""Tests of iqa_core/tables/rows.py."""

from __future__ import annotations

import pyarrow as pa

from iqa_core.tables.rows import RowSet


def rows_of(file, numbers):
    return pa.table({"manifest_file": [file] * len(numbers), "manifest_row": pa.array(numbers)})


class TestRowSet:
    def test_counts_rows_and_duplicates(self):
        rows = RowSet()
        rows.add(rows_of("a", [3, 1, 3]))
        rows.add(pa.concat_tables([rows_of("a", [1, 2]), rows_of("b", [1])]))
        assert len(rows) == 4
        assert rows.duplicates == 2
        assert list(rows.rows("a")) == [1, 2, 3]
        assert rows.files() == {"a", "b"}
