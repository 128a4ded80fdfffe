"""A run written and reported."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.pages.run.page import write_report
from tests.iqa_core.pages.run.runs import SCHEMA, Page


@pytest.fixture
def make(tmp_path):
    """Write a run of two part files and return its report's facts and page."""

    def run(given, extra=(), documents=None, **options):
        scores = tmp_path / "scores"
        (scores / "_run").mkdir(parents=True)
        table = pa.Table.from_pylist(given, pa.schema([*SCHEMA, *extra]))
        half = len(table) // 2
        pq.write_table(table[:half], scores / "part-0.parquet")
        pq.write_table(table[half:], scores / "part-1.parquet")
        documents = {"plan": {"manifest": str(tmp_path / "m.parquet")}, **(documents or {})}
        for name, document in documents.items():
            (scores / "_run" / f"{name}.json").write_text(json.dumps(document))
        output = tmp_path / "report.html"
        facts = write_report(str(scores), str(output), **options)
        assert facts.size == output.stat().st_size
        assert not list(tmp_path.glob(".report*"))
        return facts, Page(output.read_text(encoding="utf-8"))

    return run
