"""Tests of iqa_core/storage/retry.py with a clock of their own."""

from __future__ import annotations

import pytest

from iqa_core.storage import retry
from iqa_core.storage.retry import RetryPolicy, retried


class Flaky:
    """Fails some times, then returns how often it was called."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.calls


def call(policy, action, may_pass=lambda _: True):
    waits = []
    try:
        return policy.call(action, may_pass, waits.append), waits
    except OSError as error:
        return error, waits


def test_waits_double_up_to_the_longest():
    policy = RetryPolicy(attempts=5, first_wait=1.0, longest_wait=5.0, jitter=0.0)
    assert call(policy, Flaky(*[OSError()] * 4)) == (5, [1.0, 2.0, 4.0, 5.0])


def test_jitter_shortens_each_wait_by_its_share():
    policy = RetryPolicy(attempts=2, first_wait=8.0, jitter=0.25)
    waits = [policy.wait_after(1) for _ in range(200)]
    assert 6.0 <= min(waits) < max(waits) <= 8.0


def test_the_last_failure_is_raised():
    failures = [OSError("first"), OSError("second"), OSError("third")]
    error, waits = call(RetryPolicy(3, 1.0, jitter=0.0), Flaky(*failures))
    assert str(error) == "third"
    assert waits == [1.0, 2.0]


def test_what_does_not_pass_is_not_tried_again():
    action = Flaky(PermissionError("no"))
    error, waits = call(RetryPolicy(3, 1.0), action, lambda e: not isinstance(e, PermissionError))
    assert isinstance(error, PermissionError)
    assert (action.calls, waits) == (1, [])


@pytest.fixture
def waits(monkeypatch):
    """Record the waits of the policy for stores instead of waiting."""
    recorded = []
    call = RetryPolicy.call
    monkeypatch.setattr(
        RetryPolicy,
        "call",
        lambda self, action, may_pass: call(self, action, may_pass, recorded.append),
    )
    return recorded


def test_a_store_is_asked_again_whatever_its_library_raises(waits):
    assert retried(Flaky(RuntimeError("reset"), KeyError("x"))) == 3
    assert len(waits) == 2
    assert all(wait <= retry.STORE.first_wait * 2 for wait in waits)


def test_a_store_that_stays_away_is_an_os_error(waits):
    with pytest.raises(OSError, match="RuntimeError: reset"):
        retried(Flaky(*[RuntimeError("reset")] * retry.STORE.attempts))
    assert len(waits) == retry.STORE.attempts - 1


@pytest.mark.parametrize("kind", [FileNotFoundError, PermissionError, FileExistsError])
def test_an_answer_of_the_store_is_final(kind, waits):
    action = Flaky(kind("x"))
    with pytest.raises(kind):
        retried(action)
    assert (action.calls, waits) == (1, [])
