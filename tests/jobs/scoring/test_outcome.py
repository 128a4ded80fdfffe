"""Tests of jobs/scoring/outcome.py."""

from __future__ import annotations

import pytest

from jobs.scoring.meter import Steady
from jobs.scoring.outcome import (
    Outcome,
    describe_outcome,
    slowest_stage,
    stage_workers,
    utilisation,
)


def test_the_busiest_stage_for_its_workers():
    # 6 CPUs read and decode beside 2 actors of a GPU and a CPU each.
    workers = stage_workers(8, 1, 1, 2)
    assert workers == {"fetch": 6, "decode": 6, "model": 2}
    assert slowest_stage({"fetch": 0.0, "decode": 0.0, "model": 0.0}, workers) is None
    assert slowest_stage({"fetch": 1.0, "decode": 59.0, "model": 20.0}, workers) == "model"
    assert slowest_stage({"fetch": 1.0, "decode": 61.0, "model": 20.0}, workers) == "decode"
    assert slowest_stage({"fetch": 70.0, "decode": 61.0, "model": 20.0}, workers) == "fetch"


def test_actors_on_cpus_do_all_stages():
    workers = stage_workers(2, 1, 0, 2)
    assert workers == {"fetch": 2, "decode": 2, "model": 2}
    busy = {"fetch": 1.0, "decode": 3.0, "model": 16.0}
    assert slowest_stage(busy, workers) == "model"
    assert utilisation(busy, 10.0, workers) == pytest.approx(
        {"fetch": 0.05, "decode": 0.15, "model": 0.8}
    )


def test_in_a_line():
    devices = {"CPU of node a, process 1": 5, "CPU of node b, process 2": 1}
    outcome = Outcome(6, {"ok": 5, "empty": 1}, 2.0, {"model": 1.0}, "model", devices=devices)
    assert describe_outcome(outcome) == (
        "6 rows in 2 s, 3.0 rows/s; bottleneck: model; empty 1, ok 5; scored on 2 x CPU"
    )
    assert describe_outcome(Outcome(0, {}, 0.0, {}, None)) == "0 rows in 0 s, 0.0 rows/s; "


def test_the_steady_state_in_a_line():
    steady = Steady(4.0, 60.0, 240.0, 2, {"model": 100.0}, 0.5, 8.0)
    outcome = Outcome(
        400, {"ok": 400}, 120.0, {"model": 150.0}, "model", steady=steady, start_up=21.0
    )
    assert describe_outcome(outcome) == (
        "400 rows in 2:00 min, 3.3 rows/s; 4.0 rows/s in steady state; 21 s of start-up; "
        "bottleneck: model; ok 400"
    )
