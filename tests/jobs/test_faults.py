"""Scoring through killed and stopped processes: each row once in the end."""

from __future__ import annotations

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

from jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
ROWS = 3000


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, photos):
    """A manifest of 3,000 rows that name 60 images."""
    folder = tmp_path_factory.mktemp("manifest")
    for number in range(60):
        photo = photos["coffee"][number : number + 224, number : number + 224]
        Image.fromarray(photo).save(folder / f"{number}.jpg")
    table = pa.table({"uri": [f"{number % 60}.jpg" for number in range(ROWS)]})
    pq.write_table(table, folder / "manifest.parquet", row_group_size=500)
    return folder / "manifest.parquet"


def start(manifest, output, environment=None, command="score"):
    """Start scoring in a process of its own, with a local Ray of its own."""
    words = [sys.executable, "-m", "jobs", command, "--manifest", manifest, "--output", output]
    return subprocess.Popen(
        [*words, "--commit-seconds", "1"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_parts(process, output, count):
    """Wait until a run has committed so many part files."""
    deadline = time.monotonic() + 200
    while len(list(Path(output).glob("part-*.parquet"))) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no part file in time"
        time.sleep(0.05)


def identities(output):
    """Return the (file, row) of all rows of an output."""
    parts = [pq.read_table(path) for path in sorted(Path(output).glob("part-*.parquet"))]
    table = pa.concat_tables(parts)
    return list(
        zip(*(table.column(n).to_pylist() for n in ("manifest_file", "manifest_row")), strict=True)
    )


def test_a_killed_run_goes_on_where_it_was(ray_cluster, manifest, tmp_path, capsys):
    output = tmp_path / "scores"
    process = start(manifest, output)
    wait_for_parts(process, output, 1)
    options = ["--manifest", str(manifest), "--output", str(output)]
    assert main(["score", *options]) == 1  # a second driver while the first is alive
    error = capsys.readouterr().err
    assert f"--output {output} is being written by process {process.pid} on" in error
    assert error.count("\n") == 1
    wait_for_parts(process, output, 2)
    assert main(["status", "--scores", str(output)]) == 0
    assert f"{output}: running; " in capsys.readouterr().out
    process.kill()  # SIGKILL: the driver has no chance to tidy up
    process.communicate()
    assert main(["status", "--scores", str(output)]) == 1
    assert f"{output}: lost; " in capsys.readouterr().out
    before = identities(output)
    assert 0 < len(before) < ROWS
    assert main(["verify", "--scores", str(output), "--manifest", str(manifest)]) == 1
    assert f"{ROWS - len(before):,} missing" in capsys.readouterr().out
    assert main(["score", *options, "--commit-seconds", "1"]) == 0
    assert f"{ROWS - len(before):,} rows to do" in capsys.readouterr().out
    rows = identities(output)
    assert len(rows) == len(set(rows)) == ROWS
    assert main(["verify", "--scores", str(output), "--manifest", str(manifest)]) == 0
    parts = pa.concat_tables(pq.read_table(path) for path in output.glob("part-*.parquet"))
    by_uri = parts.to_pandas().groupby("uri").score
    # Before and after the crash, the same image has the same score.
    assert np.ptp(np.array([by_uri.min(), by_uri.max()]), axis=0).max() <= 1e-5


def listening(process):
    """Return the addresses on which a process and its children listen."""
    family = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(True))]
    return [
        connection.laddr
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in family
    ]


@pytest.mark.parametrize("command", ["score", "embed"])
def test_sigterm_writes_what_is_finished(manifest, tmp_path, capsys, command):
    output = tmp_path / "scores"
    process = start(manifest, output, command=command)
    wait_for_parts(process, output, 1)
    places = listening(process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopping: writing what is finished" in said
    assert "the same command resumes" in said
    rows = identities(output)
    assert len(rows) == len(set(rows))
    assert 0 < len(rows) < ROWS
    assert main(["verify", "--scores", str(output), "--manifest", str(manifest)]) == 1
    assert "Traceback" not in said
    capsys.readouterr()
    assert main(["status", "--scores", str(output)]) == 0
    line = capsys.readouterr().out
    assert f"{output}: stopped; {len(rows):,} of {ROWS:,} rows" in line
    # A local Ray is for this machine only.
    assert places
    assert {place.ip for place in places} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def ray_processes():
    """Return the raylets and the like that run now."""
    found = set()
    for process in psutil.process_iter(["name", "pid"]):
        if process.info["name"] in ("raylet", "gcs_server"):
            found.add(process.info["pid"])
    return found


def test_sigterm_while_it_starts(manifest, tmp_path):
    before = ray_processes()
    runs = {seconds: start(manifest, tmp_path / f"scores{seconds}") for seconds in (3, 6, 9, 12)}
    began = time.monotonic()
    try:
        for seconds, process in runs.items():
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            process.send_signal(signal.SIGTERM)
        for process in runs.values():
            said, _ = process.communicate(timeout=60)
            assert process.returncode in (143, -signal.SIGTERM)
            assert "Traceback" not in said
    finally:
        for process in runs.values():
            process.kill()
            process.communicate()
    assert not list(tmp_path.glob("scores*/_run/lease-*"))
    deadline = time.monotonic() + 20
    while ray_processes() - before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not ray_processes() - before


def test_sigterm_twice(manifest, tmp_path, capsys):
    output = tmp_path / "scores"
    process = start(manifest, output)
    wait_for_parts(process, output, 1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)
    assert "Traceback" not in said
    assert not list(output.glob("_run/lease-*"))
    rows = identities(output)
    assert 0 < len(rows) == len(set(rows)) <= ROWS


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 120 KB, less than the rows need, which needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no right to mount a filesystem")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_in_one_line_and_can_be_resumed(manifest, small_disk, tmp_path, capsys):
    output = small_disk / "scores"
    process = start(manifest, output)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Traceback" not in said
    line = said.strip().splitlines()[-1]
    assert line.startswith(f"iqa score: --output {output} can't be written")
    assert "No space left on device" in line
    assert line.endswith("fix this, then the same command resumes")
    done = identities(output)
    assert 0 < len(done) == len(set(done)) < ROWS
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    process = start(manifest, output)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert f"{ROWS - len(done):,} rows to do, {len(done):,} done before" in said
    assert main(["verify", "--scores", str(output), "--manifest", str(manifest)]) == 0
