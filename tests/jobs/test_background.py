"""Tests of jobs/background.py: results, errors, and functions that do not end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

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


ENDLESS = """
import signal, sys, threading, time
from jobs.background import Background
with Background(threading.Event().wait, patience=0.01):
    print("left", flush=True)
    raise {error}
"""


@pytest.mark.parametrize(
    ("error", "status"),
    [("KeyboardInterrupt", 130), ("SystemExit(signal.SIGTERM)", 143), ("ValueError", 1)],
)
def test_a_process_ends_although_it_runs(error, status):
    words = [sys.executable, "-c", ENDLESS.format(error=error)]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stdout == "left\n"
