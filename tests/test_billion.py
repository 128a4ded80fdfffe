"""docs/billion.md: the page is that of the results, and its arithmetic is what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.billion import PAGE, Assumed, Measured, arithmetic, limits, render
from iqa_core.tables import slices
from jobs.config import ImageOptions
from jobs.scoring import dataset

MEASURED = Measured(
    driver_ms=20.0,
    decode_ms=2.0,
    image_kb=100.0,
    open_seconds=10.0,
    committed_seconds=10.0,
    plan_seconds=4.0,
    rest_seconds=15.0,
    audit_seconds=1.0,
    verify_seconds=360.0,
    peak_mb=600.0,
    slices=20_000,
)
ASSUMED = Assumed(cpu_hour=0.1, gpu_hour=1.0, get_price=0.001, put_price=0.01)


def test_the_page_is_that_of_the_results():
    assert PAGE.read_text(encoding="utf-8") == render(), "run python -m benchmarks.billion"


def test_the_page_follows_the_figures():
    assert render(MEASURED) != render(replace(MEASURED, driver_ms=21.0))


def test_arithmetic():
    run = arithmetic(1000, MEASURED, ASSUMED, rows=36_000_000, gpus=10)
    assert run.rate == 10_000
    assert run.hours == 1.0
    assert run.decode_cpus == 20  # 10,000 x 2 ms
    assert run.decode_nodes == 2
    assert run.read_gbit == pytest.approx(8.0)  # 10,000 x 100 KB x 8
    assert run.prefixes == 2  # 10,000 / 5,500
    assert run.driver_cores == pytest.approx(0.2)  # 10 x 20 ms
    assert run.shards == 1
    assert run.part_files == 120  # every 30 s
    assert run.request_cost == pytest.approx(36.0 + 0.0012)
    assert run.machine_cost == pytest.approx(20 * 0.1 + 10 * 1.0)


def test_more_than_a_driver_takes():
    run = arithmetic(10_000, MEASURED, ASSUMED, rows=36_000_000, gpus=10)
    assert run.driver_cores == pytest.approx(2.0)
    assert run.shards == 3  # each busy for 70 % of a core at most


def test_limits_in_their_order():
    found = limits(MEASURED, ASSUMED)
    assert [rate for _, rate, _ in found] == sorted(rate for _, rate, _ in found)
    assert found[0][1] == 5500
    (driver,) = [rate for name, rate, _ in found if name == "one driver"]
    assert driver == pytest.approx(0.7 / 0.020 * 1000)


def test_assumptions_that_are_the_code_s():
    assert ImageOptions.__dataclass_fields__["commit_seconds"].default == Assumed().commit_seconds
    assert Assumed().call_rows == dataset._CALL_BYTES // Assumed().pixel_bytes
    assert Assumed().block_rows == dataset._MOST_ROWS // Assumed().call_rows * Assumed().call_rows
    assert slices._ROWS_PER_SLICE == 50_000
