"""Tests of jobs/scoring/outcome.py."""

from __future__ import annotations

from jobs.scoring.outcome import Outcome, describe_outcome, slowest_stage


def test_the_busiest_stage_for_its_workers():
    assert slowest_stage({"fetch": 0.0, "decode": 0.0, "model": 0.0}, 8, 1, 2) is None
    # 6 CPUs read and decode beside 2 actors of a CPU each.
    assert slowest_stage({"fetch": 1.0, "decode": 59.0, "model": 20.0}, 8, 1, 2) == "model"
    assert slowest_stage({"fetch": 1.0, "decode": 61.0, "model": 20.0}, 8, 1, 2) == "decode"
    assert slowest_stage({"fetch": 70.0, "decode": 61.0, "model": 20.0}, 8, 1, 2) == "fetch"
    assert slowest_stage({"fetch": 1.0, "decode": 3.0, "model": 2.0}, 2, 1, 2) == "decode"


def test_in_a_line():
    devices = {"CPU of node a, process 1": 5, "CPU of node b, process 2": 1}
    outcome = Outcome(6, {"ok": 5, "empty": 1}, 2.0, {"model": 1.0}, "model", devices=devices)
    assert describe_outcome(outcome) == (
        "6 rows in 2 s, 3.0 rows/s; bottleneck: model; empty 1, ok 5; scored on 2 x CPU"
    )
    assert describe_outcome(Outcome(0, {}, 0.0, {}, None)) == "0 rows in 0 s, 0.0 rows/s; "
