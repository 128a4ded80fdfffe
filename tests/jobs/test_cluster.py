"""Tests of jobs/cluster.py: a local Ray wherever it is started, and what a cluster could hold."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.errors import InputError
from jobs import cluster
from jobs.cluster import Cluster
from jobs.gpus import count_gpus
from jobs.local_ray import KEPT_WORKERS

ROOT = Path(__file__).parents[2]


class TestSocketFolder:
    @pytest.fixture(autouse=True)
    def no_variables(self, monkeypatch):
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.delenv("TMPDIR", raising=False)

    def test_the_environments_own_if_it_fits(self, monkeypatch, tmp_path_factory):
        short = Path("/tmp/iqa-short")
        short.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(short))
        assert cluster._socket_folder() == str(short)
        monkeypatch.setenv("RAY_TMPDIR", "/tmp")
        assert cluster._socket_folder() == "/tmp"
        short.rmdir()

    def test_another_if_it_is_long_or_not_there(self, monkeypatch, tmp_path):
        long = tmp_path / ("scratch" * 10)
        long.mkdir()
        monkeypatch.setenv("TMPDIR", str(long))
        monkeypatch.setenv("RAY_TMPDIR", "/no/such/folder")
        assert cluster._socket_folder() == "/tmp"

    def test_one_line_if_there_is_none(self, monkeypatch, tmp_path):
        long = tmp_path / ("scratch" * 10)
        monkeypatch.setenv("TMPDIR", str(long))
        monkeypatch.setattr(cluster, "_is_writable", lambda folder: False)
        with pytest.raises(
            InputError, match=r"\(too long by \d+ bytes\), /tmp \(not writable\)"
        ) as e:
            cluster._socket_folder()
        assert "set RAY_TMPDIR to a writable folder whose path has at most" in str(e.value)


class TestToken:
    @pytest.fixture(autouse=True)
    def no_variables(self, monkeypatch):
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)

    def test_a_home_that_can_hold_it(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cluster._token_can_be_kept()
        monkeypatch.setenv("HOME", "/proc/nobody")
        assert not cluster._token_can_be_kept()
        monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
        assert cluster._token_can_be_kept()


@pytest.mark.ray
@pytest.mark.slow
def test_scoring_without_a_home_and_with_a_long_temporary_folder(tmp_path):
    long = "{tmp}/scratch_of_the_batch_system/slurm_jobdir/1234567/node_0042/tmp.t0016"
    finished = score_in(tmp_path, {"HOME": "/proc/nobody", "TMPDIR": long})
    assert finished.returncode == 0, finished.stderr
    assert "2 rows out: none missing" in finished.stdout
    # Of the terminal only our own lines: no word of Ray's.
    lines = finished.stderr.splitlines()
    assert [line for line in lines if not re.match(r"\d+ of 2 rows", line)] == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_scoring_where_everything_else_is_read_only(tmp_path):
    """As in containers with a read-only root: the output is a volume."""
    mounts = 'mount -t tmpfs none "$0" && mount -o remount,ro,bind / && exec "$@"'
    before = ["unshare", "-m", "sh", "-c", mounts, tmp_path / "out"]
    finished = score_in(tmp_path, {"TMPDIR": None}, before)
    assert finished.returncode == 0, finished.stderr
    assert "2 rows out: none missing" in finished.stdout


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user"
)
def test_scoring_as_a_user_without_a_name(tmp_path):
    """As containers do that are given any user id: no entry in passwd, no home."""
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o777)
    # Rights to read everything, as Python itself may lie in a folder of root's.
    words = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    finished = score_in(tmp_path, {"HOME": None, "USER": None}, before=words)
    assert finished.returncode == 0, finished.stderr
    assert "2 rows out: none missing" in finished.stdout


def score_in(folder, variables, before=()):
    """Score two images in a process with other environment variables."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    environment = dict(os.environ)
    for variable, value in variables.items():
        environment.pop(variable, None)
        if value is not None:
            environment[variable] = value.format(tmp=folder)
    if variables.get("TMPDIR"):
        Path(environment["TMPDIR"]).mkdir(parents=True)
    iqa = [sys.executable, "-m", "jobs"]
    environment["PYTHONPATH"] = str(ROOT)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    manifest = folder / "m.parquet"
    subprocess.run(
        [*iqa, "manifest", photos, "--output", manifest], check=True, capture_output=True, cwd=ROOT
    )
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    return subprocess.run(
        [*before, *iqa, "score", "--manifest", manifest, "--output", folder / "out/scores"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("process", ["gcs_server", "raylet/raylet"])
def test_an_interrupted_start_leaves_nothing_behind(process, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    pq.write_table(pa.table({"uri": ["0.png"]}), tmp_path / "m.parquet")
    words = ["--manifest", tmp_path / "m.parquet", "--output", tmp_path / "o"]
    command = subprocess.Popen(
        [sys.executable, "-m", "jobs", "score", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background processes, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    driver = psutil.Process(command.pid)
    while not any(process in " ".join(words_of(child)) for child in all_below(driver)):
        assert command.poll() is None
        time.sleep(0.05)
    started = all_below(driver)
    command.send_signal(signal.SIGINT)
    said = command.communicate(timeout=120)[1]
    assert (command.returncode, said) == (130, "iqa score: interrupted\n")
    assert psutil.wait_procs(started, timeout=30)[1] == []
    assert not (tmp_path / "o").exists()


def all_below(process):
    return process.children(recursive=True)


def words_of(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


class TestCountGpus:
    def test_as_many_as_torch_finds(self):
        import torch

        assert count_gpus() == torch.cuda.device_count()

    def test_torch_is_asked_where_there_is_a_device_file(self, tmp_path):
        code = "import sys; from jobs.gpus import count_gpus; count_gpus(({!r},)); "
        code += "print('torch' in sys.modules)"
        (tmp_path / "nvidia0").touch()
        for name, asked in (("nvidia*", "True"), ("amd*", "False")):
            words = [sys.executable, "-c", code.format(str(tmp_path / name))]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
            assert done.stdout.strip() == asked


class TestPossibleGpus:
    def test_a_machine_of_its_own_has_what_it_has(self, monkeypatch):
        monkeypatch.setattr(cluster, "_is_connected", lambda: False)  # by another test
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        found = Cluster(None)
        assert found.possible_gpus == found.resources["GPU"]
        assert found.resources["CPU"] >= 2
        assert found.is_local
        assert not found.has_several_nodes


KEPT = """
import os, time
import psutil, ray
from jobs.cluster import Cluster

with Cluster(None) as cluster:
    cluster.start()

    @ray.remote(num_cpus=0)
    def process():
        time.sleep(0.5)
        return os.getpid()

    # Ray keeps as many idle workers as there are CPUs anyway.
    started = set(ray.get([process.remote() for _ in range(int(ray.cluster_resources()["CPU"]) + 1)]))
    time.sleep(4)
    print("all kept:", all(map(psutil.pid_exists, started)))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [None, "1000"])
def test_a_local_ray_keeps_idle_workers_for_the_next_tasks(milliseconds):
    """Ray's own limit is a second, which the environment can set."""
    environment = dict(os.environ)
    [name] = KEPT_WORKERS
    if milliseconds:
        environment[name] = milliseconds
    done = subprocess.run(
        [sys.executable, "-c", KEPT], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"all kept: {milliseconds is None}" in done.stdout
