"""`ray job submit` to clusters of several nodes on this machine; some with logical GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from tests.jobs.gpu_runs import write_images
from tools.local_cluster import LocalCluster, NodeSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("submitted_runs.py")
GPU = NodeSpec(cpus=2, gpus=1, labels={"zone": "gpu"}, resources={"scorers": 1})
CPU = NodeSpec(cpus=2, labels={"zone": "cpu", "iqa-stage": "decode"})
#: Rows of the manifests of runs that are ended on their way; on GPUs, four rows take 0.2 s.
MANY, SLOW = 1000, 400
ONE_CPU_ACTOR = ("--gpus", "0", "--num-actors", "1", "--commit-seconds", "1")


class Job:
    """A submitted job."""

    def __init__(self, cluster, *words):
        self.address = cluster.jobs
        submit = [
            "ray",
            "job",
            "submit",
            "--address",
            self.address,
            "--working-dir",
            ROOT,
            "--no-wait",
        ]
        self.environment = cluster.environment
        done = self._ray(submit, "--", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        self.id = done.stdout.partition("Job '")[2].partition("'")[0]

    def _ray(self, *words):
        flat = [
            str(word) for part in words for word in (part if isinstance(part, list) else [part])
        ]
        return subprocess.run(
            flat, env=self.environment, capture_output=True, text=True, cwd="/tmp"
        )

    def _get(self, path=""):
        with urllib.request.urlopen(f"{self.address}/api/jobs/{self.id}{path}") as answer:
            return json.load(answer)

    @property
    def log(self):
        return self._get("/logs")["logs"]

    def stop(self):
        """Do what `ray job stop` does, without the seconds that it takes to start."""
        request = urllib.request.Request(f"{self.address}/api/jobs/{self.id}/stop", method="POST")
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer) == {"stopped": True}

    def wait(self, until=lambda: False, seconds=240):
        """Wait for its end, or until something else is so; return its information."""
        deadline = time.monotonic() + seconds
        while (info := self._get())["status"] in ("PENDING", "RUNNING") and not until():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.5)
        return info

    def succeed(self):
        info = self.wait()
        assert (info["status"], info["driver_exit_code"]) == ("SUCCEEDED", 0), self.log
        return self.log


def iqa(command, folder, output, *words, manifest="m.parquet"):
    """Return the words of a command that reads a manifest of a folder, as they are submitted."""
    paths = ("--manifest", folder / manifest, "--output", folder / output, "--shared-filesystem")
    return ["python", "-m", "jobs", command, *paths, *words]


def verify(folder, output, manifest):
    return main(["verify", "--scores", str(folder / output), "--manifest", str(folder / manifest)])


def parts(output):
    return list(output.glob("part-*.parquet"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 images; a manifest of them and of one that is not there, and two that repeat the 60."""
    folder = tmp_path_factory.mktemp("submit")
    write_images(folder)
    for name, rows in (("many", MANY), ("slow", SLOW)):
        uris = [f"{number % 60}.png" for number in range(rows)]
        pq.write_table(pa.table({"uri": uris}), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def four():
    """A head on which nothing is scored, two nodes with CPUs, two with GPUs."""
    with LocalCluster(CPU, CPU, GPU, GPU) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def runs(four, folder):
    """Run -> status, what it printed, its summary, and where its tasks and actors ran."""
    Job(four, "python", PROGRAM, "everything", folder).succeed()
    return json.loads((folder / "everything.json").read_text())


class TestFourNodes:
    def placed(self, four, run, name):
        """Return the zones of the nodes on which something with a name ran, with their numbers."""
        zones = {node.address: node.spec.labels.get("zone", "head") for node in four.nodes}
        found = Counter()
        for full, nodes in run["placed"].items():
            if name in full:
                for address, count in nodes.items():
                    found[zones.get(address, "head")] += count
        return found

    @pytest.mark.parametrize(
        "run",
        ["score", "embed", "train", "rescore", "verify score", "verify embed", "verify rescore"],
    )
    def test_each_command_runs(self, runs, run):
        assert runs[run]["status"] == 0, runs[run]["err"]

    def test_a_local_path_needs_a_word_that_all_nodes_see_it(self, runs, folder):
        assert runs["refused"]["status"] == 1
        line, status = runs["refused"]["err"].splitlines()
        assert status.startswith("exit status 1: ")
        assert "m.parquet and --output " in line
        assert line.endswith("or say --shared-filesystem if they see the same files")
        assert not (folder / "refused").exists()

    def test_gpus_score_what_other_nodes_decode(self, runs, four):
        run = runs["score"]
        assert "in fp16" in run["out"]
        assert self.placed(four, run, "PixelActor").keys() == {"gpu"}
        decoded = self.placed(four, run, "decode_rows")
        assert "head" not in decoded
        assert decoded["cpu"] > 0
        assert sum(run["summary"]["devices"].values()) == 61

    def test_stages_run_where_the_options_say(self, runs, four):
        run = runs["embed"]
        assert self.placed(four, run, "PixelActor").keys() == {"gpu"}
        assert self.placed(four, run, "decode_rows").keys() == {"gpu"}
        assert self.placed(four, run, "read_rows").keys() == {"gpu"}

    def test_a_local_run_folder_needs_that_word_too(self, runs):
        assert runs["train refused"]["status"] == 1
        assert "--run-folder " in runs["train refused"]["err"]

    def test_workers_train_on_the_nodes_with_gpus(self, runs, four):
        assert "workers: 2 on GPUs" in runs["train"]["out"]
        assert self.placed(four, runs["train"], "TrainWorker") == {"gpu": 2}


def test_a_stopped_job_is_resumed_by_the_same_submit(four, folder):
    words = iqa("score", folder, "stopped", *ONE_CPU_ACTOR, manifest="many.parquet")
    job = Job(four, *words)
    job.wait(until=lambda: parts(folder / "stopped"))
    job.stop()
    assert job.wait()["status"] == "STOPPED"
    assert "stopped" in job.log
    before = sum(pq.read_metadata(path).num_rows for path in parts(folder / "stopped"))
    assert 0 < before < MANY
    assert f"{before:,} done before" in Job(four, *words).succeed()
    assert verify(folder, "stopped", "many.parquet") == 0


def test_a_lost_gpu_node_is_replaced_by_one_that_joins(four, folder):
    job = Job(four, "python", PROGRAM, "slow", folder)
    job.wait(until=lambda: parts(folder / "slow"))
    four.remove(next(node for node in four.nodes if node.spec == GPU))
    joined = four.add(GPU)
    job.succeed()
    run = json.loads((folder / "slow.json").read_text())
    assert run["status"] == 0, run["err"]
    summary = json.loads((folder / "slow/_run/summary.json").read_text())
    assert any(f"node {joined.address} " in device for device in summary["devices"])
    assert verify(folder, "slow", "slow.parquet") == 0


def test_two_clusters_do_a_shard_each_and_one_is_lost(four, folder):
    """The head of one is killed in the middle of its shard; a new cluster gets the same submit."""

    def shard(number):
        words = (*ONE_CPU_ACTOR, "--shard", f"{number}/2", "--lease-seconds", "5")
        return iqa("score", folder, "shards", *words, manifest="many.parquet")

    with LocalCluster(head=NodeSpec(cpus=2)) as lost:
        jobs = [Job(four, *shard(0)), Job(lost, *shard(1))]
        jobs[1].wait(until=lambda: any("0001-of" in path.name for path in parts(folder / "shards")))
        lost.nodes[0].kill()
    with LocalCluster(head=NodeSpec(cpus=2)) as new:
        again = Job(new, *shard(1))
        assert "done before" in again.succeed()
        waits_for_gpus_that_never_come(new, folder)
    jobs[0].succeed()
    assert verify(folder, "shards", "many.parquet") == 0


def waits_for_gpus_that_never_come(cluster, folder):
    job = Job(cluster, *iqa("score", folder, "none", "--gpus", "4", "--wait-minutes", "0.1"))
    info = job.wait()
    assert (info["status"], info["driver_exit_code"]) == ("FAILED", 1)
    waiting = [line for line in job.log.splitlines() if line.startswith("waiting for 4 GPUs: ")]
    assert waiting
    reason, status = job.log.strip().splitlines()[-2:]
    assert reason.startswith(
        "iqa score: --wait-minutes 0.1 is over, and the run still waits for 4 GPUs"
    )
    assert status == "exit status 1: failed"
    assert not parts(folder / "none")


@pytest.mark.skipif(
    not os.environ.get("IQA_AUTOSCALER"),
    reason="not reliable: GPUs come and score, but Ray's fake provider loses tasks now and then",
)
def test_an_autoscaler_starts_gpus_for_a_run_and_ends_them(folder):
    kind = {"resources": {"CPU": 2, "GPU": 1}, "min_workers": 0, "max_workers": 2}
    with LocalCluster(head=NodeSpec(cpus=2), autoscaler={"gpu": kind}) as cluster:
        Job(cluster, "python", PROGRAM, "grown", folder).succeed()
        run = json.loads((folder / "grown.json").read_text())
        assert run["status"] == 0, run["err"]
        assert "in fp16, at most 2 GPU actors" in run["out"]
        assert "0 GPUs now, up to 2 possible" in run["out"]
        summary = json.loads((folder / "grown/_run/summary.json").read_text())
        assert len(summary["devices"]) == 2  # one GPU a node, so on two nodes
        assert summary["statuses"] == {"ok": SLOW}
        deadline = time.monotonic() + 120
        while (alive := gpus_of(cluster)) and time.monotonic() < deadline:
            time.sleep(1)
        assert alive == 0


def gpus_of(cluster):
    """Return the GPUs of the nodes that are alive."""
    words = (
        "import ray; ray.init(log_to_driver=False); print(ray.cluster_resources().get('GPU', 0))"
    )
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
    words = [sys.executable, "-c", words]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])  # Ray says more behind it
