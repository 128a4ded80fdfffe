"""Tests of jobs/scoring/plan.py and policy.py."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyroaring import BitMap

from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.rows import RowSet
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.policy import RunPolicy


@pytest.fixture
def manifest(tmp_path):
    for name in ("a", "b"):
        pq.write_table(pa.table({"uri": ["x.jpg"] * 5}), tmp_path / f"{name}.parquet")
    return open_manifest(str(tmp_path))


def done(*numbers):
    rows = RowSet()
    table = {"manifest_file": ["a.parquet"] * len(numbers), "manifest_row": list(numbers)}
    rows.add(pa.table(table))
    return rows


def wanted(plan):
    return {unit.file: list(BitMap.deserialize(unit.wanted)) for unit in plan.slices}


def test_all_rows_that_are_not_done(manifest):
    plan = ScoringPlan.of(manifest, ("mos",), done(0, 3), skip_damaged=True)
    assert (plan.rows, plan.keep, plan.skip_damaged) == (8, ("mos",), True)
    assert wanted(plan) == {"a.parquet": [1, 2, 4], "b.parquet": [0, 1, 2, 3, 4]}


def test_what_is_left_after_more_rows_were_done(manifest):
    plan = ScoringPlan.of(manifest, (), done(0, 3)).without(done(0, 1, 2, 3, 4))
    assert plan.rows == 5
    assert wanted(plan) == {"b.parquet": [0, 1, 2, 3, 4]}


def test_nothing_stops_a_run_that_allows_any_error_rate():
    assert RunPolicy(max_error_rate=0.99).stops_in_outage
    assert not RunPolicy(max_error_rate=1).stops_in_outage
