"""Tests of jobs/scoring/meter.py: rates of a run whose blocks come at known times."""

from __future__ import annotations

import pytest

from jobs.scoring.meter import Meter, Totals


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cpu():
    return Clock()


def deliver(meter, clock, blocks, *, busy=None, cpu=None, cpu_seconds=0.0):
    """Deliver (moment, device, rows), in the order of time."""
    for moment, device, rows in sorted(blocks):
        clock.now = moment
        if cpu is not None:
            cpu.now += cpu_seconds
        meter.add({device: rows}, busy or {"fetch": 0.0, "decode": 1.0, "model": 3.0})


def regular(device, first, each, count, rows=10):
    return [(first + each * number, device, rows) for number in range(count)]


def test_totals_are_on_a_line_between_two_moments():
    totals = Totals(10)
    totals.add(10.0, (4.0, 1.0))
    totals.add(20.0, (8.0, 1.0))
    assert totals.at(9.9) == (0.0, 0.0)
    assert totals.at(10.0) == (4.0, 1.0)
    assert totals.at(15.0) == (6.0, 1.0)
    assert totals.at(99.0) == (8.0, 1.0)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 33, 1000, 1001])
def test_totals_keep_few_moments_and_always_the_last(count):
    totals = Totals(8)
    for number in range(count):
        totals.add(float(number), (2.0 * number,))
    assert len(totals.moments) <= 9
    assert totals.moments[0] == 0.0
    assert totals.moments[-1] == count - 1
    for moment in (0.0, count / 3, count - 1.5, count - 1.0):
        assert totals.at(moment)[0] == pytest.approx(2 * min(max(0.0, moment), count - 1))


def test_the_steady_state_of_a_long_run(clock, cpu):
    meter = Meter(clock, cpu)
    # Two devices of 5 rows a second each, after slow first blocks; the second ends early.
    blocks = [*regular("a", 20.0, 2.0, 100), *regular("b", 31.0, 2.0, 90)]
    deliver(meter, clock, blocks, cpu=cpu, cpu_seconds=0.01)
    steady = meter.steady()
    assert steady.images_per_second == pytest.approx(10.0)
    assert steady.devices == 2
    assert steady.driver_ms == pytest.approx(1000.0, rel=0.02)  # 10 ms for 10 rows
    assert steady.stage_seconds["decode"] == pytest.approx(steady.rows / 10, rel=0.02)
    assert steady.stage_seconds["model"] == pytest.approx(3 * steady.stage_seconds["decode"])


def test_the_time_in_which_all_devices_are_busy(clock):
    meter = Meter(clock)
    # The slower one counts with what it does in the time, not with the blocks that end in it.
    deliver(meter, clock, [*regular("a", 10.0, 1.0, 12), *regular("b", 12.0, 4.0, 4)])
    steady = meter.all_busy()
    assert steady.seconds == pytest.approx(21.0 - 12.0)
    assert steady.images_per_second == pytest.approx(10 + 2.5)
    assert meter.seconds_of_all_busy() == pytest.approx(9.0)


def test_a_device_that_came_late_does_not_shorten_it_to_nothing(clock):
    meter = Meter(clock)
    deliver(meter, clock, [*regular("a", 10.0, 1.0, 40), (47.0, "b", 10), (48.0, "b", 10)])
    assert meter.seconds_of_all_busy() == 0.0
    assert meter.all_busy() == meter.steady()


def test_too_few_blocks(clock):
    meter = Meter(clock)
    assert meter.start_up(0.0, None) is None
    assert meter.steady() is None
    assert meter.all_busy() is None
    deliver(meter, clock, [(30.0, "a", 10)])
    assert meter.steady() is None
    assert meter.all_busy() is None
    assert meter.start_up(5.0, None) == 25.0


def test_start_up_is_without_the_work_on_the_first_rows(clock):
    meter = Meter(clock)
    clock.now = 3.0
    deliver(meter, clock, [*regular("a", 20.0, 2.0, 50), *regular("b", 20.0, 2.0, 50)])
    # A block takes a device 2 s.
    assert meter.start_up(5.0, meter.steady()) == pytest.approx(20.0 - 2.0 - 5.0)


def test_what_waiting_costs_the_driver_is_not_the_price_of_its_blocks(clock, cpu):
    meter = Meter(clock, cpu)
    for _ in range(40):
        clock.now += 1.0
        cpu.now += 0.05
        meter.wait()  # asking for news costs 5 % of a core
        clock.now += 1.0
        cpu.now += 0.05 + 0.02  # and a block 20 ms
        meter.add({"a": 100}, {"fetch": 0.0, "decode": 1.0, "model": 1.0})
    steady = meter.steady()
    assert steady.driver_seconds == pytest.approx(0.02 * steady.blocks)
    assert steady.driver_ms == pytest.approx(200.0)
    assert meter.driver_seconds == pytest.approx(40 * 0.12)
