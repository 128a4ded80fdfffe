"""Tests of iqa_core/tables/audit.py."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.audit import audit
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.rows import RowSet


def write(path, /, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    row_group_size = columns.pop("row_group_size", None)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def rows_of(file, numbers):
    return pa.table({"manifest_file": [file] * len(numbers), "manifest_row": pa.array(numbers)})


class TestAudit:
    @pytest.fixture
    def manifest(self, tmp_path):
        write(tmp_path / "a.parquet", uri=[str(n) for n in range(6)])
        write(tmp_path / "b.parquet", uri=["x", "y"])
        return open_manifest(str(tmp_path))

    def test_passes_if_each_row_is_there_once(self, manifest):
        rows = RowSet()
        rows.add(rows_of("a.parquet", range(6)))
        rows.add(rows_of("b.parquet", [1, 0]))
        result = audit(manifest, rows)
        assert result.passed
        assert str(result) == "8 rows in, 8 rows out: none missing, none twice"

    def test_names_what_is_wrong(self, manifest):
        rows = RowSet()
        rows.add(rows_of("a.parquet", [0, 1, 2, 5, 5, 6, 9]))
        rows.add(rows_of("c.parquet", [0]))
        result = audit(manifest, rows)
        assert not result.passed
        assert (result.found, result.missing, result.twice, result.unknown) == (4, 4, 1, 3)
        assert result.examples == ("a.parquet:3", "a.parquet:4", "b.parquet:0", "b.parquet:1")
