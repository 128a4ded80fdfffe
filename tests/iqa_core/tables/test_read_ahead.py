"""Tests of iqa_core/tables/read_ahead.py."""

from __future__ import annotations

import threading

import pytest

from iqa_core.tables.read_ahead import _container_cpus, available_cpus, in_order


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers):
    assert list(in_order((lambda n=n: n * n for n in range(40)), workers)) == [
        n * n for n in range(40)
    ]
    assert list(in_order([], workers)) == []


def test_only_a_few_tasks_are_begun_ahead():
    begun = []
    tasks = ((lambda n=n: begun.append(n) or n) for n in range(50))
    results = in_order(tasks, 3)
    assert next(results) == 0
    assert len(begun) <= 4
    results.close()
    assert len(begun) <= 5


def test_tasks_run_at_the_same_time():
    together = threading.Barrier(2, timeout=30)
    assert len(list(in_order([together.wait, together.wait], 2))) == 2


def test_a_failure_comes_in_its_place():
    def fail():
        raise ValueError("broken")

    results = in_order([lambda: 1, fail, lambda: 3], 2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)


def test_at_least_one_cpu():
    assert available_cpus() >= 1


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_the_quota_of_a_container(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert _container_cpus(tmp_path) == cpus
