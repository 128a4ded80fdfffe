"""Tests of jobs/local_ray.py: signals that come while Ray starts, and what a local Ray runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private import utils

from jobs.local_ray import _with_small_agent, signals_held

ROOT = Path(__file__).parents[2]

#: What `ray.init` does with the handler of SIGTERM, and forks, in whose hooks an exception is lost.
PROGRAM = """
import logging, os, signal, subprocess, sys
from ray._private import utils
from jobs.local_ray import signals_held

sent = [signal.Signals[name] for name in sys.argv[1:]]
try:
    with signals_held():
        utils.set_sigterm_handler(lambda number, _: sys.exit(number))
        os.register_at_fork(after_in_parent=lambda: sent and os.kill(os.getpid(), sent.pop()))
        while sent:
            subprocess.run(["true"], preexec_fn=lambda: None)
        logging.warning("started")
except (SystemExit, KeyboardInterrupt) as error:
    logging.warning("stopped by %s", type(error).__name__)
logging.warning("SIGTERM raises %s", signal.getsignal(signal.SIGTERM).__name__)
logging.warning("SIGINT is %s", signal.getsignal(signal.SIGINT).__name__)
"""


def said_when(*names):
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        check=True,
    )
    return [line.rpartition(":")[2] for line in process.stderr.splitlines() if "WARNING" in line]


@pytest.mark.parametrize(
    ("name", "error"), [("SIGTERM", "SystemExit"), ("SIGINT", "KeyboardInterrupt")]
)
def test_a_signal_waits_until_ray_has_started(name, error):
    said = said_when(name)
    assert said[:2] == ["started", f"stopped by {error}"]
    assert said[2:] == ["SIGTERM raises <lambda>", "SIGINT is default_int_handler"]


@pytest.fixture
def _handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_a_second_signal_acts_at_once():
    reached = []

    def start():
        with signals_held():
            utils.set_sigterm_handler(lambda number, _: sys.exit(number))
            for time in (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
                reached.append(time)

    with pytest.raises(SystemExit):
        start()
    assert reached == [1]


def test_without_a_signal_ray_s_handlers_are_left():
    assert said_when() == ["started", "SIGTERM raises <lambda>", "SIGINT is default_int_handler"]


@pytest.mark.usefixtures("_handlers")
def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_held():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


#: Starts a local Ray as a command does; prints what its dashboard's agent logged.
LOCAL = """
import os, ray
from jobs.cluster import Cluster

with Cluster(None) as cluster:
    cluster.start()
    assert ray.get(ray.remote(lambda: 1).remote(), timeout=100) == 1
    folder = ray._private.worker.global_worker.node.get_logs_dir_path()
    print(open(os.path.join(folder, "dashboard_agent.log")).read())
"""


@pytest.mark.ray
def test_the_dashboards_agent_of_a_local_ray_serves_nothing():
    done = subprocess.run(
        [sys.executable, "-c", LOCAL], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "Loaded 0 modules" in done.stdout
    assert "raylet pid is" in done.stdout  # it ends with the raylet


def test_a_raylet_that_is_started_otherwise_is_left_as_it_is():
    commands = []
    started = _with_small_agent(commands.append, ["raylet", "--dashboard_agent_command=agent x"])
    assert started is None
    assert commands == [["raylet", "--dashboard_agent_command=agent x"]]
