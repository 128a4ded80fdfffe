"""Tests of score on clusters of several local nodes: nodes that fail, come late, or see other files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(700)]


def on_nodes(what, folder):
    """Run one function of cluster_runs.py; return what it found."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/jobs/cluster_runs.py", what, folder],
        # Ray Data's own limit on waiting, which the runs must not have.
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "20"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def gpus(tmp_path_factory):
    return on_nodes("gpus", tmp_path_factory.mktemp("gpus"))


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("only root can hide files from a node")
    return on_nodes("blind", tmp_path_factory.mktemp("blind"))


def last_line(run):
    assert run["status"] == 1
    assert "Traceback" not in run["err"]
    return run["err"].strip().splitlines()[-1]


def test_a_run_waits_for_gpus_and_says_so(gpus):
    run = gpus["waited"]
    assert run["status"] == 0, run["err"]
    assert "0 GPUs now: scoring begins once there is one" in run["out"]
    waiting = [line for line in run["err"].splitlines() if line.startswith("waiting for 1 GPU")]
    assert "a scoring actor needs 1 CPU, 1 GPU" in waiting[0]
    assert "no node has more than 2 CPU, 0 GPU" in waiting[0]
    assert "in fp16" in run["out"]
    assert "scored on 1 x cuda" in run["out"]
    assert run["summary"]["statuses"] == {"ok": 60, "not_found": 1}


def test_a_run_that_waits_ends_on_request(gpus):
    stopped = gpus["stopped"]
    assert stopped["status"] == 143, stopped["err"]
    assert "Traceback" not in stopped["err"]
    assert "stopping: writing what is finished\n" in stopped["err"]
    assert stopped["seconds"] < 30


def test_an_output_keeps_the_precision_it_was_begun_with(gpus):
    assert "in fp32" in gpus["on CPUs"]["out"]
    again = gpus["on CPUs, again"]
    assert again["status"] == 0, again["err"]
    assert "nothing to do: all 61 rows are in" in again["out"]


def test_a_node_that_can_not_score_is_left_out(gpus):
    run, bad = gpus["with a bad node"], f"({gpus['bad node'][:8]})"
    assert run["status"] == 0, run["err"]
    summary = run["summary"]
    assert summary["statuses"] == {"ok": 60, "not_found": 1}
    assert summary["audit"]["missing"] == summary["audit"]["twice"] == 0
    (reason,) = summary["nodes_left_out"]
    assert f"{bad}: RuntimeError: Found no NVIDIA driver on your system" in reason
    assert f"{reason}: that node is left out" in run["err"]
    assert all(bad not in device for device in summary["devices"])


def test_images_that_a_node_can_not_see_are_not_missing(blind):
    line = last_line(blind["no images"])
    assert "can't see the image photos/" in line
    assert "put images on a filesystem that all nodes share" in line


def test_a_manifest_that_a_node_can_not_see(blind):
    line = last_line(blind["no manifest"])
    assert "m.parquet: node " in line
    assert "put it on a filesystem that all nodes share" in line
