"""Tests of the commands on Ray's logical GPUs: each line that asks for a GPU is run here."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything that gpu_runs.py left."""
    folder = tmp_path_factory.mktemp("gpus")
    done = subprocess.run(
        [sys.executable, ROOT / "tests/jobs/gpu_runs.py", folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """Run -> status, what it printed, and its summary."""
    return json.loads((folder / "runs.json").read_text())["runs"]


def scores(output):
    table = pq.read_table(output, columns=["manifest_row", "score"]).sort_by("manifest_row")
    return table.column("score").to_numpy()  # not a number where there is none


SCORED = ("two actors", "one actor", "half a GPU each", "a CPU for two")


@pytest.mark.parametrize("run", SCORED)
def test_each_row_is_scored_once(runs, folder, run):
    assert runs[run]["status"] == 0, runs[run]["err"]
    assert runs[run]["statuses"] == {"ok": 60, "not_found": 1}
    assert runs[run]["audit"]["missing"] == runs[run]["audit"]["twice"] == 0
    found, wanted = (scores(folder / name.replace(" ", "-")) for name in (run, "two actors"))
    assert found == pytest.approx(wanted, abs=1e-5, nan_ok=True)


def test_pools_are_as_asked_for(runs):
    assert [runs[run]["actors"]["at_start"] for run in SCORED] == [2, 1, 3, 2]
    assert [runs[run]["actors"]["gpus"] for run in SCORED] == [1, 1, 0.5, 1]
    # Four would take all four CPUs, and none would decode.
    assert "in fp16, at most 3 GPU actors" in runs["half a GPU each"]["out"]


def test_towers_are_compiled_where_it_is_asked_for(runs, folder):
    """By the one actor of the one run with --compile, for its batches."""
    assert runs["one actor"]["status"] == 0
    assert [path.read_text() for path in folder.glob("compiled-*")] == ["4"]


def test_jpegs_are_decoded_by_the_actors(runs, folder):
    found, exact = (
        pq.read_table(folder / f"decoded-{mode}").sort_by("manifest_row")
        for mode in ("gpu", "exact")
    )
    for mode in ("gpu", "exact"):
        run = runs[f"decoded {mode}"]
        assert run["status"] == 0, run["err"]
        assert run["statuses"] == {"ok": 25, "decode_error": 2, "not_found": 1}
        assert run["audit"]["missing"] == run["audit"]["twice"] == 0
    for name in ("status", "width", "height", "content_hash", "manifest_row"):
        assert found.column(name).equals(exact.column(name)), name
    difference = np.abs(scores(folder / "decoded-gpu") - scores(folder / "decoded-exact"))
    assert 0 < np.nanmax(difference) < 0.01  # not the same pixels, but those of the same images
    reasons = found.column("error").to_pylist()
    assert ["cut short" in (reason or "") for reason in reasons[25:27]] == [True, True]


@pytest.mark.parametrize("run", [*SCORED, "embed"])
def test_the_summary_says_what_scored(runs, run):
    devices = runs[run]["devices"]
    assert sum(devices.values()) == 61
    assert all(device.startswith("cuda of node ") for device in devices)
    assert f"scored on {len(devices)} x cuda" in runs[run]["out"]


def test_copies_keep_their_columns_on_the_way_to_a_gpu(runs, folder):
    """By chance, one actor gets both copies; it then encodes one."""
    assert runs["a CPU for two"]["last_run"]["repeated"] in (0, 1)
    assert runs["two actors"]["last_run"]["repeated"] is None
    table = pq.read_table(folder / "a-CPU-for-two").sort_by("manifest_row")
    hashes, described = (table.column(name).to_pylist() for name in ("content_hash", "descriptor"))
    assert hashes[58] == hashes[59] is not None
    assert described[58] == described[59] is not None
    assert len(set(hashes)) == 60  # of 59 images, and none of the row without one


def test_a_gpu_that_can_not_be_used_is_no_cpu(runs, folder):
    """No CUDA here: the actor says so, instead of scoring in half precision on its CPU."""
    run = runs["without a device"]
    assert run["status"] == 1
    last = run["err"].strip().splitlines()[-1]
    assert "a scoring actor could not start on node" in last
    assert "no other node can take its place" in last
    assert "Traceback" not in run["err"]
    left = {path.name for path in (folder / "broken").rglob("*.json")}
    assert left == {"progress.json"}  # nothing binds the next run


def test_features_are_embedded_and_scored(runs, folder):
    assert runs["embed"]["status"] == runs["rescore"]["status"] == 0, runs["embed"]["err"]
    pairs = zip(scores(folder / "rescored"), scores(folder / "two-actors"), strict=True)
    assert all(np.isnan([one, other]).all() or abs(one - other) < 2e-3 for one, other in pairs)


@pytest.mark.parametrize("workers", [1, 2])
def test_training_runs_on_gpus(runs, folder, workers):
    run = runs[f"train on {workers}"]
    assert run["status"] == 0, run["err"]
    assert f"workers: {workers} on GPUs" in run["out"]
    assert (folder / f"learned-{workers}.safetensors").exists()


def test_each_line_that_asks_for_gpus_was_run(folder, runs):
    """A call with GPUs that no test starts is taken to be broken."""
    asking = set()
    for path in (ROOT / "jobs").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                words = getattr(call, "keywords", []) if isinstance(call, ast.Call) else []
                if {"num_gpus", "use_gpu"} & {word.arg for word in words}:
                    asking.add(f"{path.name}:{function.name}")
    started = set(json.loads((folder / "runs.json").read_text())["started"])
    assert runs
    assert {place.partition(":")[2] for place in asking} == {"scored_pixels", "_scaling"}
    assert asking - started == set()
