"""Tests of jobs/scoring/wait.py: a line every half minute, and an end after --wait-minutes."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from jobs.progress import Progress, Waiting
from jobs.scoring.pool import ActorPool
from jobs.scoring.wait import Wait

GPUS = Waiting("4 GPUs", "node type gpu, 0 of 4 running")


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def wait(clock, limit=None, needs=lambda pool: GPUS, has_room=lambda pool: True):
    pool = ActorPool(4, 1.0, 1.0)
    return Wait(pool, limit, Progress(10, clock), needs, clock, has_room=has_room)


def run(waiting, clock, seconds):
    """Check every half second."""
    for _ in range(2 * seconds):
        clock.now += 0.5
        waiting.check()


def test_a_line_every_half_minute(clock, capsys):
    run(wait(clock), clock, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "waiting for 4 GPUs: node type gpu, 0 of 4 running; Ctrl-C or `ray job stop` ends the wait"
    )
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "waiting for 4 GPUs since 32 s",
        "waiting for 4 GPUs since 1",
    ]


def test_it_ends_after_the_limit(clock):
    with pytest.raises(InputError) as caught:
        run(wait(clock, limit=300.0), clock, 1000)
    assert clock.now - 50 == pytest.approx(300, abs=25)
    assert caught.value.on_command_line() == (
        "--wait-minutes 5 is over, and the run still waits for 4 GPUs (node type gpu, 0 of 4 running); "
        "what was finished is safe, and the same command resumes"
    )


def test_a_run_that_gets_on_does_not_wait(clock, capsys):
    waiting = wait(clock, limit=15.0)
    for _ in range(20):
        run(waiting, clock, 9)
        waiting.end()
    assert capsys.readouterr().err == ""


def test_a_wait_that_ended_is_not_counted(clock):
    needs = GPUS
    waiting = wait(clock, limit=60.0, needs=lambda pool: needs)
    run(waiting, clock, 50)
    needs = None  # a node came
    run(waiting, clock, 50)
    needs = GPUS  # and went
    run(waiting, clock, 50)


def test_short_limits_are_kept(clock):
    with pytest.raises(InputError, match=r"wait_minutes 0\.05 is over"):
        run(wait(clock, limit=3.0), clock, 10)


class TestOtherWork:
    """All nodes are there, and what they have is in use."""

    def test_it_is_waited_for(self, clock, capsys):
        waiting = wait(clock, needs=lambda pool: None, has_room=lambda pool: False)
        run(waiting, clock, 15)
        assert capsys.readouterr().err == (
            "waiting for room for a scoring actor: other work on the cluster holds what it needs; "
            "Ctrl-C or `ray job stop` ends the wait\n"
        )
        assert waiting.is_waiting()

    def test_the_limit_counts(self, clock):
        waiting = wait(clock, 60.0, needs=lambda pool: None, has_room=lambda pool: False)
        with pytest.raises(InputError, match="still waits for room for a scoring actor"):
            run(waiting, clock, 100)

    def test_it_is_over_once_there_is_room(self, clock):
        rooms = iter([False, True, False])
        waiting = wait(clock, needs=lambda pool: None, has_room=lambda pool: next(rooms))
        assert not waiting.is_waiting()
        assert not waiting.is_waiting()  # the run's own actor holds it now

    def test_it_is_over_with_the_first_block(self, clock):
        waiting = wait(clock, needs=lambda pool: None, has_room=lambda pool: False)
        waiting.end()
        assert not waiting.is_waiting()


def test_a_run_that_has_actors_does_not_wait_for_room(clock, capsys):
    """Room that its own actors have taken is never free."""
    waiting = wait(clock, limit=300.0, needs=lambda pool: None, has_room=lambda pool: False)
    run(waiting, clock, 295)
    assert "waiting for room for a scoring actor" in capsys.readouterr().err
    waiting.end_in_use()
    run(waiting, clock, 295)
    assert capsys.readouterr().err == ""
