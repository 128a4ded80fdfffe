"""Training whose features, rows and checkpoints are on S3 only, on two nodes; one worker is killed."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING, VIEW_LEVELS, VIEWS
from iqa_core.prompts.file import load_prompts
from iqa_core.tables.feature_cache import feature_column
from iqa_core.training.data import PARTS
from tests.iqa_core.training.rows import write_cache
from tests.s3 import BUCKET, s3_server
from tools.local_cluster import LocalCluster, NodeSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
ROWS, COPIES, WIDTH = 400, 3, 128
OPTIONS = ["--pairs", "pyiqa", "--list-size", "32", "--steps", "30", "--checkpoint-steps", "5"]
OPTIONS += ["--context-length", "4", "--seeds", "2", "--holdout", "0.2", "--write", "learned"]
# Rounding differs between one worker and two, and many or large steps make more of it: 1e-3 after 60.
OPTIONS += ["--learning-rate", "0.0005"]


def write_features(folder):
    """Write a cache in which each copy is as bad as its level says, by two prompts of `tiny`."""
    towers = load_towers("tiny")
    good, bad = towers.text.encode(["Good photo.", "Bad photo."]).numpy()
    generator = np.random.default_rng(0)
    levels = np.concatenate([np.zeros((ROWS, 1)), generator.integers(1, 6, (ROWS, COPIES))], axis=1)
    features = 0.05 * generator.normal(size=(ROWS, 1 + COPIES, WIDTH))
    features += (1 - levels / 2.5)[..., None] * (good - bad) / np.linalg.norm(good - bad)
    features = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)
    table = pa.table(
        {
            "manifest_file": ["m.parquet"] * ROWS,
            "manifest_row": pa.array(range(ROWS), pa.int64()),
            "status": ["ok"] * ROWS,
            EMBEDDING: feature_column(features[:, 0]),
            VIEWS: feature_column(features[:, 1:].reshape(ROWS, -1)),
            VIEW_LEVELS: pa.array(levels[:, 1:].tolist(), pa.list_(pa.int8(), COPIES)),
        }
    )
    write_cache(folder, table)
    fingerprint = {"model": "tiny", "weights": towers.digest}
    (folder / "_run/fingerprint.json").write_text(json.dumps(fingerprint))


class Store:
    """A bucket with features."""

    def __init__(self, proxy, environment, options, folder):
        import s3fs

        self.proxy, self.environment = proxy, environment
        self.fs = s3fs.S3FileSystem(**options, skip_instance_cache=True, use_listings_cache=False)
        self.fs.mkdir(BUCKET)
        write_features(folder / "features")
        self.fs.put(str(folder / "features"), f"{BUCKET}/features", recursive=True)

    def read(self, name):
        return self.fs.cat_file(f"{BUCKET}/{name}")

    def history(self, name):
        return pq.read_table(io.BytesIO(self.read(f"{name}.run/metrics.parquet"))).to_pandas()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("s3fs")
    with s3_server() as (proxy, environment, options):
        yield Store(proxy, environment, options, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def two(store):
    """A head on which nothing runs, and two nodes for a worker each, which see the bucket alone."""
    cluster = LocalCluster(NodeSpec(cpus=1), NodeSpec(cpus=1))
    cluster.environment |= {"FSSPEC_S3": store.environment["FSSPEC_S3"]}
    with cluster:
        yield cluster


def start(environment, *words):
    command = [sys.executable, "-m", "jobs", "train", "--features", f"s3://{BUCKET}/features"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*command, *OPTIONS, *words],
        cwd=ROOT,
        env=environment,
        # A shell's background processes, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **pipes,
    )


def finish(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    return out


def test_two_nodes_without_a_shared_folder_learn_what_one_process_learns(store, two, tmp_path):
    alone = f"s3://{BUCKET}/alone"
    finish(
        start(store.environment, "--output", str(tmp_path / "a.safetensors"),
              "--run-folder", f"{alone}.run")
    )  # fmt: skip
    store.proxy.sent.clear()
    output = tmp_path / "b.safetensors"
    words = ["--output", str(output), "--num-workers", "2", "--address", two.address]
    process = start(two.environment, *words, "--run-folder", f"s3://{BUCKET}/both.run")
    workers = kill_one(store, process)
    said = finish(process)
    assert "workers: 2 on CPUs" in said
    memory = re.search(r"memory: ([\d,]+) MiB at most in a worker", said)
    assert 100 < int(memory[1].replace(",", "")) < 2000
    first, second = (store.history(name) for name in ("alone", "both"))
    assert first.step.tolist() == second.step.tolist() == list(range(0, 31, 5))
    np.testing.assert_allclose(first.loss[1:], second.loss[1:], rtol=0, atol=1e-5)
    assert second.loss[6] < second.loss[1] - 0.1
    assert len({worker["process"] for worker in workers}) == 2
    assert load_prompts(output).training["recovered_at_steps"]
    # Each start of a worker reads what it trains on once at most, and so does the driver.
    for part in ("train", "bases"):
        for array in PARTS[part]:
            name = f"{BUCKET}/both.run/{part}.{array}"
            assert store.proxy.sent[name] <= 5 * store.proxy.received[name], name
    assert store.proxy.sent[f"{BUCKET}/both.run/train.features"] > 0
    names = [f"{BUCKET}/both.run/{part}.{array}" for part in PARTS for array in PARTS[part]]
    stored, sent = (
        sum(each[name] for name in names) for each in (store.proxy.received, store.proxy.sent)
    )
    print(
        f"{memory[0]}; {stored:,} bytes of rows stored, {sent:,} read by 4 starts of workers and a driver"
    )


def kill_one(store, process):
    """Kill the second worker once there is a checkpoint; return the workers that there were."""
    wait_for_step(store, process, "both", 10)
    workers = json.loads(store.read("both.run/start-0000.json"))["workers"]
    os.kill(workers[1]["process"], signal.SIGKILL)
    return workers


def wait_for_step(store, process, name, wanted):
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint in time"
        try:
            step = json.loads(store.read(f"{name}.run/progress.json"))["step"]
        except FileNotFoundError:
            step = 0
        if step >= wanted:
            return
        time.sleep(0.2)


def test_fewer_workers_go_on_when_a_node_is_lost(store, two, tmp_path):
    """With the losses of one process, which the first test has left."""
    output = tmp_path / "d.safetensors"
    words = ["--output", str(output), "--num-workers", "2", "--min-workers", "1"]
    words += ["--address", two.address, "--run-folder", f"s3://{BUCKET}/fewer.run"]
    process = start(two.environment, *words)
    wait_for_step(store, process, "fewer", 10)
    two.remove(two.nodes[-1])
    assert "workers: 1 to 2 on CPUs" in finish(process)
    first, second = (store.history(name) for name in ("alone", "fewer"))
    np.testing.assert_allclose(first.loss[1:], second.loss[1:], rtol=0, atol=1e-5)
    assert load_prompts(output).training["recovered_at_steps"]


def test_a_training_that_no_node_can_hold_ends_after_a_time(store, two, tmp_path):
    """And a run folder of this machine alone is refused."""
    words = ["--output", str(tmp_path / "c.safetensors"), "--address", two.address]
    process = start(two.environment, *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert (
        f"--run-folder {tmp_path}/c.run: on this machine, whose files the other nodes of the cluster may "
        "not see"
    ) in err
    words += ["--run-folder", f"s3://{BUCKET}/c.run", "--gpus-per-worker", "1"]
    process = start(two.environment, *words, "--wait-minutes", "0.2")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "waiting for 1 GPU" in err
    assert "--wait-minutes 0.2 is over, and the training still waits for " in err
    assert err.rstrip().endswith("the same command resumes")
    assert "Traceback" not in err


def test_one_ctrl_c_ends_a_wait(store, two, tmp_path):
    words = ["--output", str(tmp_path / "e.safetensors"), "--address", two.address]
    words += ["--run-folder", f"s3://{BUCKET}/e.run", "--gpus-per-worker", "1"]
    process = start(two.environment, *words)
    for line in process.stderr:
        if "waiting for 1 GPU" in line:
            break
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert time.monotonic() - began < 30
