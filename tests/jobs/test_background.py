"""Tests of jobs/background.py: results, errors, and a function that does not end."""

from __future__ import annotations

import threading

import pytest

from jobs.background import Background


def test_it_works_beside_the_main_thread():
    met = threading.Barrier(2, timeout=30)
    with Background(lambda: met.wait() + 10) as work:
        met.wait()
        assert work.result() in (10, 11)


def test_its_error_is_raised_by_the_result():
    def fail():
        raise KeyError("gone")

    with Background(fail) as work, pytest.raises(KeyError, match="gone"):
        work.result()


def test_leaving_early_waits_for_it():
    ended = threading.Event()
    began = threading.Event()

    def work():
        began.wait()
        ended.set()

    with Background(work, patience=30):
        began.set()
    assert ended.is_set()


def test_leaving_early_does_not_wait_for_ever():
    go_on = threading.Event()
    with pytest.raises(InterruptedError), Background(go_on.wait, patience=0.01):
        raise InterruptedError
    go_on.set()
