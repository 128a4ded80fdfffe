"""Runs the commands on clusters of several local nodes, for tests/jobs/test_nodes.py.

A program of its own, as a process has one Ray: ``python cluster_runs.py WHAT FOLDER`` leaves
``FOLDER/found.json``. The nodes are raylets on this machine; their GPUs are logical, and the towers only
pretend to use them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import ray
from gpu_runs import OnDevice, command, write_images
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import jobs.scoring.run
from iqa_core.clip.load import load_towers

CPU_ONLY = ("--model", "tiny", "--batch-size", "4")


class FailsOnOneNode(OnDevice):
    """A tower that can't be put onto the device of one node, as where a driver is missing."""

    def __init__(self, tower, node):
        super().__init__(tower)
        self.node = node

    def to_device(self, device, precision):
        if ray.get_runtime_context().get_node_id() == self.node:
            raise RuntimeError("Found no NVIDIA driver on your system.\nMore words.")
        return super().to_device(device, precision)


def use(make):
    """Put a tower in the place of loaded ones."""

    def load(model, *options):
        towers = load_towers(model, *options)
        return replace(towers, image=make(towers.image))

    jobs.scoring.run.lightest_towers = load


def score(folder, output, *words):
    manifest = ("--manifest", folder / "m.parquet", "--output", folder / output)
    found = command("score", *manifest, *CPU_ONLY, "--shared-filesystem", *words)
    summary = folder / output / "_run/summary.json"
    found["summary"] = json.loads(summary.read_text()) if summary.exists() else None
    return found


def gpus(cluster, folder):
    """GPUs that come later; an output begun without; a GPU node on which no actor can start."""
    found = {"on CPUs": score(folder, "cpus")}
    found["stopped"] = stop_waiting(cluster, folder)
    use(OnDevice)
    # In a process of its own: only a main thread may call `cluster.add_node`.
    coming = start_node(cluster, "--num-gpus=1", before="sleep 45")
    found["waited"] = score(folder, "later", "--gpus", "1")
    use(lambda tower: tower)
    found["on CPUs, again"] = score(folder, "cpus")
    bad = cluster.add_node(num_cpus=2, num_gpus=1)
    wait_for_nodes(3)
    use(lambda tower: FailsOnOneNode(tower, bad.node_id))
    found |= {"with a bad node": score(folder, "bad"), "bad node": bad.node_id}
    end_node(coming)
    return found


def stop_waiting(cluster, folder):
    """Stop a run that waits for GPUs, by the signal of `ray job stop`."""
    words = ["--manifest", folder / "m.parquet", "--output", folder / "stopped"]
    words += ["--gpus", "1", "--address", cluster.address]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "score", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("waiting for 1 GPU"):
            break
    began = time.monotonic()
    process.terminate()
    lines += process.stderr
    status = process.wait()
    return {"status": status, "err": "".join(lines), "seconds": time.monotonic() - began}


def blind(cluster, folder):
    """A node that does not see a folder: the manifest is in it, or the images are."""
    photos = folder / "photos"
    photos.mkdir()
    for path in folder.glob("*.png"):
        path.rename(photos / path.name)
    with blind_node(cluster, photos):
        command("manifest", photos, "--output", photos / "m.parquet")
        words = ("--manifest", photos / "m.parquet", "--output", folder / "none", *CPU_ONLY)
        words = (*words, "--shared-filesystem")
        found = {"no manifest": command("score", *words)}
        command("manifest", photos, "--output", folder / "m.parquet")
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # All CPUs of this node are taken, so that the other one decodes.
        holder = Holder.options(scheduling_strategy=here).remote()
        ray.get(holder.ready.remote())
        found["no images"] = score(folder, "some", "--cpus-per-actor", "0.5", "--num-actors", "1")
        ray.kill(holder)
    return found


@ray.remote(num_cpus=2)
class Holder:
    def ready(self):
        return True


def start_node(cluster, *options, before):
    """Start a node of two CPUs after a shell command."""
    ray_command = Path(sys.executable).with_name("ray")
    words = [ray_command, "start", "--block", "--num-cpus=2", f"--address={cluster.address}"]
    words += ["--dashboard-agent-listen-port=0", "--disable-usage-stats", *options]
    command = f"{before} && exec {' '.join(map(str, words))}"
    words = ["unshare", "-m"] if before.startswith("mount") else []
    return subprocess.Popen(
        [*words, "sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def end_node(process):
    process.terminate()
    process.wait()


def wait_for_nodes(number):
    deadline = time.monotonic() + 120
    while len([node for node in ray.nodes() if node["Alive"]]) < number:
        assert time.monotonic() < deadline, "a node did not come"
        time.sleep(0.5)


@contextlib.contextmanager
def blind_node(cluster, hidden):
    """Have a node in a mount namespace in which a folder is empty."""
    node = start_node(cluster, before=f"mount -t tmpfs none {hidden}")
    try:
        wait_for_nodes(2)
        yield
    finally:
        end_node(node)


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        write_images(folder)
        found = globals()[what](cluster, folder)
        (folder / "found.json").write_text(json.dumps(found))
    finally:
        ray.shutdown()
        cluster.shutdown()
