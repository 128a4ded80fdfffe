"""Tests of jobs/scoring/stop_requests.py."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from jobs.scoring.stop_requests import stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_event_and_the_second_acts(number, capsys):
    second = []
    before = signal.signal(number, lambda *_: second.append(True))
    try:
        with stop_requests() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.is_set()
            assert second == []
            assert "stopping: writing what is finished" in capsys.readouterr().err
            os.kill(os.getpid(), number)
            assert second == [True]
        os.kill(os.getpid(), number)
        assert second == [True, True]  # the handler from before is back
    finally:
        signal.signal(number, before)


class Broken:
    """A standard error whose reader has ended, or that was just being written to."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), RuntimeError("reentrant call")])
def test_a_stop_that_nobody_can_be_told_of_is_a_stop(error, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken(error))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_can_not_handle_signals():
    before, found = signal.getsignal(signal.SIGTERM), []

    def enter():
        with stop_requests() as stop:
            found.append((stop.is_set(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(False, before)]
