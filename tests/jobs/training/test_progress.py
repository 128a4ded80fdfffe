"""Tests of jobs/training/progress.py: what a person sees of the file that the first worker writes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from jobs.progress import Waiting
from jobs.training import progress
from jobs.training.progress import show_progress
from jobs.training.run_folder import PROGRESS


def test_the_last_check_is_printed_once(tmp_path, capsys):
    folder = Folder.of(str(tmp_path))
    record = {"step": 1500, "loss": None, "agreement": 0.25}
    with show_progress(folder, 2000, lambda: None):
        folder.write_json(PROGRESS, record)
    assert capsys.readouterr().err == (
        "step 1,500 of 2,000, loss none, held-out agreement 0.2500\n"
    )


def test_a_file_that_is_missing_or_cut_short_prints_nothing(tmp_path, capsys):
    folder = Folder.of(str(tmp_path))
    with show_progress(folder, 10, lambda: None):
        pass
    with show_progress(folder, 10, lambda: None):
        folder.write(PROGRESS, b'{"step": 1')
    assert capsys.readouterr().err == ""


@pytest.fixture(autouse=True)
def handles_ctrl_c():
    """As in a terminal: a shell's background jobs, and so their tests, are started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_in_steps(folder, waiting, wait_minutes=0.001):
    with show_progress(folder, 10, waiting, wait_minutes=wait_minutes):
        for _ in range(200):  # an interrupt from a thread does not end a sleep
            time.sleep(0.1)


def test_a_wait_after_the_first_steps_ends_too(tmp_path, capsys, monkeypatch):
    """Of a training that is resumed, or whose nodes have all gone."""
    monkeypatch.setattr(progress, "_SECONDS", 0.05)
    folder = Folder.of(str(tmp_path))
    folder.write_json(PROGRESS, {"step": 5, "loss": 1.0, "agreement": None})
    waiting = Waiting("a node with 1 CPU", "a training worker needs 1 CPU, and there is none")
    with pytest.raises(InputError, match=r"wait_minutes 0\.001 is over, .* a node with 1 CPU"):
        wait_in_steps(folder, lambda: waiting)
    assert "waiting for a node with 1 CPU" in capsys.readouterr().err


def test_a_ctrl_c_that_has_no_effect_is_repeated(tmp_path, monkeypatch):
    """Of which the first may come before the wait is seen, and others where an exception is lost."""
    monkeypatch.setattr(progress, "_SECONDS", 0.05)
    monkeypatch.setattr(progress, "_SECONDS_TO_END", 0.05)
    waiting = Waiting("a node with 1 CPU", "a training worker needs 1 CPU, and there is none")
    looks, received = iter([None, None]), []

    def handle(*_):
        received.append(time.monotonic())
        if len(received) == 6:
            raise KeyboardInterrupt

    def look():
        if not received:
            os.kill(os.getpid(), signal.SIGINT)
        return next(looks, waiting)

    before = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_in_steps(Folder.of(str(tmp_path)), look, wait_minutes=None)
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.2)
    assert len(received) == 6
