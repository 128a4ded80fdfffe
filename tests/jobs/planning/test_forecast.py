"""Tests of jobs/planning/forecast.py: exact numbers from exact measurements."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from jobs.planning.forecast import Fleet, forecast
from jobs.prices import Prices
from jobs.scoring.meter import Steady

#: Two CPUs at 100 images a second: 1 ms of waiting, 4 ms to decode, 15 ms in the tower.
TWO_CPUS = Steady(
    images_per_second=100.0,
    seconds=10.0,
    rows=1000.0,
    devices=2,
    stage_seconds={"fetch": 1.0, "decode": 4.0, "model": 15.0},
    driver_seconds=0.2,
    blocks=20.0,
)
CPUS = Fleet(cpus=2.0, gpus=0.0, actors=2, actor_cpus=1.0, actor_gpus=0.0, block_rows=200)
#: A GPU with 7 decoders beside its actor: 10 ms to decode, 1 ms in the tower.
ONE_GPU = replace(
    TWO_CPUS,
    images_per_second=690.0,
    rows=6900.0,
    devices=1,
    stage_seconds={"fetch": 6.9, "decode": 62.1, "model": 6.9},
)
GPUS = Fleet(cpus=8.0, gpus=1.0, actors=1, actor_cpus=1.0, actor_gpus=1.0, block_rows=2000)


def test_a_machine_without_gpus():
    found = forecast(TWO_CPUS, CPUS, 30_000, 20.0, None)
    assert found.images_per_second == 100.0
    assert found.seconds == pytest.approx(20 + 300)
    assert found.stage_ms == pytest.approx({"fetch": 1.0, "decode": 4.0, "model": 15.0})
    assert found.bottleneck == "model"
    assert (found.decode_cpus_per_gpu, found.cpus_per_actor) == (None, None)
    assert (found.cost, found.cost_per_million) == (None, None)


def test_actors_that_did_not_take_part_in_the_sample():
    found = forecast(TWO_CPUS, replace(CPUS, cpus=8.0, actors=8), 30_000, 20.0, None)
    assert found.images_per_second == 400.0


def test_blocks_that_came_all_at_once():
    burst = replace(TWO_CPUS, images_per_second=250.0)
    found = forecast(burst, CPUS, 30_000, 20.0, None)
    assert found.images_per_second == pytest.approx(100.0)  # two actors, 20 ms an image


def test_the_driver():
    # 10 ms a block, and a block of the run has 200 rows.
    found = forecast(TWO_CPUS, CPUS, 30_000, 20.0, None)
    assert found.driver_ms == pytest.approx(50.0)
    assert found.driver_limit == pytest.approx(20_000)
    assert found.drivers == 1
    many = replace(CPUS, cpus=700.0, actors=700)  # 35,000 images a second
    assert forecast(TWO_CPUS, many, 30_000, 20.0, None).drivers == 3
    free = replace(TWO_CPUS, driver_seconds=0.0)
    found = forecast(free, many, 30_000, 20.0, None)
    assert (found.driver_ms, found.driver_limit, found.drivers) == (0.0, math.inf, 1)


def test_costs():
    found = forecast(TWO_CPUS, CPUS, 30_000, 20.0, Prices(cpu=0.05, gpu=9.0))
    assert found.cost_per_million == pytest.approx(2 * 0.05 * (1e6 / 100) / 3600)
    assert found.cost == pytest.approx(2 * 0.05 * 320 / 3600)
    found = forecast(ONE_GPU, GPUS, 700_000, 0.0, Prices(cpu=0.0, gpu=3.6))
    assert found.cost == pytest.approx(1.0)  # 1,000 s at 0.001 a second


def test_decoders_limit_a_gpu():
    found = forecast(ONE_GPU, GPUS, 7000, 0.0, None)
    assert found.images_per_second == pytest.approx(700.0)  # 7 decoders of 10 ms
    assert found.bottleneck == "decode"
    assert found.decode_cpus_per_gpu == pytest.approx(10.0)  # the tower takes 1,000 a second


def test_a_gpu_limits_decoders():
    found = forecast(ONE_GPU, replace(GPUS, cpus=32.0), 7000, 0.0, None)
    assert found.images_per_second == pytest.approx(1000.0)
    assert found.bottleneck == "model"


def test_two_calls_at_once_count_a_devices_seconds_twice():
    busy = replace(ONE_GPU, stage_seconds={**ONE_GPU.stage_seconds, "model": 13.8})
    found = forecast(busy, replace(GPUS, cpus=32.0), 7000, 0.0, None)
    assert found.images_per_second == pytest.approx(690.0)


def test_actors_of_half_a_gpu():
    halves = replace(GPUS, actors=2, actor_gpus=0.5)
    assert forecast(ONE_GPU, halves, 7000, 0.0, None).decode_cpus_per_gpu == pytest.approx(20.0)


def test_waiting_for_images():
    slow = replace(TWO_CPUS, stage_seconds={"fetch": 12.0, "decode": 3.0, "model": 5.0})
    found = forecast(slow, CPUS, 30_000, 20.0, None)
    assert found.bottleneck == "fetch"
    assert found.cpus_per_actor == pytest.approx(0.4)
    assert forecast(slow, replace(CPUS, actor_cpus=0.4), 1, 0.0, None).cpus_per_actor is None
    hopeless = replace(slow, stage_seconds={"fetch": 99.0, "decode": 0.5, "model": 0.5})
    assert forecast(hopeless, CPUS, 1, 0.0, None).cpus_per_actor == 0.1
