"""Tests of jobs/scoring/stalls.py: what is begun again, and how often; test_dataset.py has a real one."""

from __future__ import annotations

import pytest
from ray.data.exceptions import ExecutionTimeoutError

from iqa_core.errors import InputError
from jobs.progress import Progress
from jobs.scoring.feed import ExecutionError
from jobs.scoring.stalls import Stalls, is_stall

#: As Ray Data words it.
MESSAGE = """Dataset execution made no progress for at least 1801s of scheduling time (timeout: 1800s).
Operators still running:
  - MapBatches(decode_rows): 2 active task(s), 40 finished, 41 outputs taken
  - MapBatches(PixelActor): 0 active task(s), 39 finished, 39 outputs taken
If this is expected, raise the timeout"""


def stall():
    error = ExecutionError("stalled")
    error.__cause__ = ExecutionTimeoutError(MESSAGE)
    return error


def test_other_failures_are_none():
    error = ExecutionError("a task failed")
    error.__cause__ = ValueError("of its own")
    assert not is_stall(error)
    assert is_stall(stall())


def test_the_line_names_the_stage_and_its_tasks(capsys):
    stalls = Stalls(30.0, Progress(10))
    stalls.begin_again(stall(), 5)
    assert stalls.total == 1
    assert capsys.readouterr().err == (
        "nothing moved for 30 min (MapBatches(decode_rows): 2 unfinished): what is left is begun again\n"
    )


def test_three_without_a_finished_row_end_the_run():
    stalls = Stalls(30.0, Progress(10))
    stalls.begin_again(stall(), 0)
    stalls.begin_again(stall(), 0)
    with pytest.raises(InputError, match="3 times without a finished row") as caught:
        stalls.begin_again(stall(), 0)
    assert "or raise --stall-minutes if a batch takes that long" in caught.value.on_command_line()
    assert stalls.total == 2


def test_rows_in_between_are_another_beginning():
    stalls = Stalls(30.0, Progress(10))
    for rows in (0, 0, 1, 1, 2, 2, 3, 3):
        stalls.begin_again(stall(), rows)
    assert stalls.total == 8


def test_missing_rows_are_begun_again_as_often(capsys):
    stalls = Stalls(30.0, Progress(10))
    for rows in (0, 4, 4):
        stalls.begin_missing(1000 - rows, rows)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "1,000 rows did not come: what is left is begun again"
    with pytest.raises(InputError, match=r"996 rows did not come, 3 times without .* that died;"):
        stalls.begin_missing(996, 4)
