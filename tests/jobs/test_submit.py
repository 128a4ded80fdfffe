"""`ray job submit` against a real cluster on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster():
    """`ray start --head` with its own ports and folder; gives environment and job address."""
    folder = tempfile.mkdtemp(dir="/tmp", prefix="iqa")  # Ray's sockets need a short path
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    ports = {
        name: free_port()
        for name in (
            "port",
            "dashboard-port",
            "dashboard-agent-listen-port",
            "ray-client-server-port",
        )
    }
    words = ["ray", "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    words += ["--dashboard-host=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    words += [f"--{name}={port}" for name, port in ports.items()]
    log = Path(folder, "start.log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        yield environment, address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_up(address, process_environment):
    words = ["ray", "job", "list", "--address", address]
    for _ in range(60):
        done = subprocess.run(words, env=process_environment, capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise AssertionError(done.stdout + done.stderr)


def test_a_submitted_job_scores_a_manifest(cluster, photos, tmp_path):
    environment, address = cluster
    for number in range(12):
        crop = photos["chelsea"][number : number + 200, :240]
        Image.fromarray(crop).save(tmp_path / f"{number}.jpg")
    manifest, output = tmp_path / "manifest.parquet", tmp_path / "scores"
    pq.write_table(pa.table({"uri": [f"{number}.jpg" for number in range(12)]}), manifest)
    wait_until_up(address, environment)
    words = ["ray", "job", "submit", "--address", address, "--working-dir", ".", "--"]
    words += ["python", "-m", "jobs", "score", "--manifest", str(manifest)]
    done = subprocess.run(
        [*words, "--output", str(output)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with urllib.request.urlopen(f"{address}/api/jobs/") as answer:
        (job,) = [job for job in json.load(answer) if job["type"] == "SUBMISSION"]
    assert job["status"] == "SUCCEEDED"
    assert job["driver_exit_code"] == 0
    assert main(["verify", "--scores", str(output), "--manifest", str(manifest)]) == 0
