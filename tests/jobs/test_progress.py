"""Tests of jobs/progress.py: the rate of the last minute, and the time left that follows from it."""

from __future__ import annotations

import pytest

from jobs.progress import Progress, duration


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def shown(progress, clock, moments):
    """Add rows at moments of time; return the line after the last."""
    for moment, rows in moments:
        clock.now = moment
        progress.add({"ok": rows})
    return progress.line(clock.now)


def test_before_the_first_rows(clock):
    progress = Progress(100, clock)
    assert progress.line(57.0) == "0 of 100 rows (0 %); starting, 7 s"


def test_start_up_does_not_count(clock):
    progress = Progress(1000, clock)
    line = shown(progress, clock, [(150.0, 100), (160.0, 300)])
    assert line == "300 of 1,000 rows (30 %); 20.0 rows/s; 35 s left"


def test_the_rate_is_the_present_one(clock):
    # 10 rows a second for 100 s, and then 100 a second.
    slow = [(100.0 + second, 10 * second) for second in range(1, 101)]
    fast = [(200.0 + second, 1000 + 100 * second) for second in range(1, 91)]
    progress = Progress(20_000, clock)
    assert "; 10.0 rows/s; 31:40 min left" in shown(progress, clock, slow)
    assert "; 100.0 rows/s; 1:40 min left" in shown(progress, clock, fast)


def test_rows_that_stop_coming_lower_it(clock):
    progress = Progress(1000, clock)
    shown(progress, clock, [(100.0 + second, 10 * second) for second in range(1, 31)])
    assert progress.line(130.0).startswith("300 of 1,000 rows (30 %); 10.0 rows/s; 1:10 min left")
    assert "; 5.0 rows/s; " in progress.line(159.0)  # 290 rows in 58 s


def test_rows_that_come_less_often_than_once_a_minute(clock):
    progress = Progress(1000, clock)
    line = shown(progress, clock, [(100.0, 100), (200.0, 200), (300.0, 300)])
    assert "; 1.0 rows/s; 11:40 min left" in line
    assert "; 0.5 rows/s; " in progress.line(400.0)


def test_memory_is_bounded(clock):
    progress = Progress(10**9, clock)
    shown(progress, clock, [(100.0 + step / 100, step) for step in range(1, 30_000)])
    assert len(progress._history) < 100


def test_errors_by_kind(clock):
    progress = Progress(10, clock)
    clock.now = 60.0
    progress.add({"ok": 5, "timeout": 2, "empty": 1})
    assert progress.line(60.0) == ("8 of 10 rows (80 %); 3 not scored: empty 1, timeout 2")


def test_a_log_has_a_line_every_15_seconds(clock, capsys):
    progress = Progress(100, clock)
    for second in range(61):
        clock.now = 50.0 + second
        progress.add({"ok": second})
        progress.tick()
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["15", "30", "45", "60"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (187.0, "3:07 min"), (7380.0, "2:03 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
