"""Tests of score on clusters of several local nodes: nodes that fail, come late, or see other files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.slow]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide files from a node")


def on_nodes(what, folder):
    """Run one function of cluster_runs.py; return what it found."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/jobs/cluster_runs.py", what, folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def last_line(run):
    assert "Traceback" not in run["err"]
    return run["err"].strip().splitlines()[-1]


def test_a_node_that_can_not_score_is_left_out(tmp_path):
    found = on_nodes("a_bad_node", tmp_path)
    run, summary = found["run"], found["run"]["summary"]
    assert run["status"] == 0, run["err"]
    assert summary["statuses"] == {"ok": 60, "not_found": 1}
    assert summary["audit"]["missing"] == summary["audit"]["twice"] == 0
    (reason,) = summary["nodes_left_out"]
    assert f"({found['node'][:8]}): RuntimeError: Found no NVIDIA driver on your system." in reason
    assert f"{reason}: that node is left out" in run["err"]
    assert all(f"({found['node'][:8]})" not in device for device in summary["devices"])


def test_a_run_waits_for_gpus_and_says_so(tmp_path):
    run = on_nodes("gpus_that_come_later", tmp_path)["waited"]
    assert run["status"] == 0, run["err"]
    assert "0 GPUs now: scoring begins once there is one" in run["out"]
    waiting = [line for line in run["err"].splitlines() if line.startswith("waiting for a node")]
    assert (
        "with 1 CPU, 1 GPU for a scoring actor (no node has more than 2 CPU, 0 GPU)" in waiting[0]
    )
    assert "in fp16" in run["out"]
    assert "scored on 1 x cuda" in run["out"]
    assert run["summary"]["statuses"] == {"ok": 60, "not_found": 1}


def test_an_output_keeps_the_precision_it_was_begun_with(tmp_path):
    found = on_nodes("precision_stays", tmp_path)
    assert "in fp32" in found["first"]["out"]
    assert found["again"]["status"] == 0, found["again"]["err"]
    assert "nothing to do: all 61 rows are in" in found["again"]["out"]


@as_root
def test_images_that_a_node_can_not_see_are_not_missing(tmp_path):
    run = on_nodes("hidden_images", tmp_path)["run"]
    assert run["status"] == 1
    line = last_line(run)
    assert "can't see the image photos/" in line
    assert "put images on a filesystem that all nodes share" in line


@as_root
def test_a_manifest_that_a_node_can_not_see(tmp_path):
    run = on_nodes("hidden_manifest", tmp_path)["run"]
    assert run["status"] == 1
    assert "m.parquet: node " in last_line(run)
    assert "put it on a filesystem that all nodes share" in last_line(run)
    assert not (tmp_path / "o").exists()
