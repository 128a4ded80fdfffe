"""Runs the commands on clusters of several local nodes, for tests/jobs/test_nodes.py.

A program of its own, as a process has one Ray: ``python cluster_runs.py WHAT FOLDER`` prints JSON. The
nodes are raylets on this machine; their GPUs are logical, and the towers only pretend to use them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import ray
from gpu_runs import OnDevice, command, write_images
from ray.cluster_utils import Cluster

import jobs.run
from iqa_core.towers import load_towers

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

    jobs.run.load_towers = load


def score(folder, output, *words):
    manifest = ("--manifest", folder / "m.parquet", "--output", folder / output)
    found = command("score", *manifest, *CPU_ONLY, *words)
    summary = folder / output / "_run/summary.json"
    found["summary"] = json.loads(summary.read_text()) if summary.exists() else None
    return found


def a_bad_node(cluster, folder):
    """One of two GPU nodes can't start an actor: the other one does all of the work."""
    bad = cluster.add_node(num_cpus=2, num_gpus=1)
    cluster.wait_for_nodes()
    use(lambda tower: FailsOnOneNode(tower, bad.node_id))
    cluster.add_node(num_cpus=2, num_gpus=1)
    cluster.wait_for_nodes()
    return {"run": score(folder, "o"), "node": bad.node_id}


def gpus_that_come_later(cluster, folder):
    """No GPU at the start: the run waits, says so, and goes on once a node comes."""
    use(OnDevice)

    def grow():
        time.sleep(45)
        cluster.add_node(num_cpus=2, num_gpus=1)

    threading.Thread(target=grow, daemon=True).start()
    waited = score(folder, "later", "--gpus-per-actor", "1")
    return {"waited": waited}


def precision_stays(cluster, folder):
    """Begun on CPUs, resumed where GPUs have come meanwhile."""
    first = score(folder, "o")
    cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    return {"first": first, "again": score(folder, "o")}


def hidden_images(cluster, folder):
    """A node that sees the manifest, but not the images."""
    photos = folder / "photos"
    add_blind_node(cluster, photos)
    manifest = folder / "m.parquet"
    command("manifest", photos, "--output", manifest)
    # All CPUs of this node are taken, so that the other one decodes.
    busy = [hold.remote() for _ in range(1)]
    found = score(folder, "o", "--cpus-per-actor", "0.5")
    ray.cancel(busy[0], force=True)
    return {"run": found}


def hidden_manifest(cluster, folder):
    """A node that does not see the manifest."""
    add_blind_node(cluster, folder / "photos")
    command("manifest", folder / "photos", "--output", folder / "photos/m.parquet")
    (folder / "m.parquet").symlink_to(folder / "photos/m.parquet")
    words = ("--manifest", folder / "photos/m.parquet", "--output", folder / "o", *CPU_ONLY)
    return {"run": command("score", *words)}


@ray.remote(num_cpus=1.5)
def hold():
    time.sleep(600)


def add_blind_node(cluster, hidden):
    """Start a node in a mount namespace in which a folder is empty."""
    hidden.mkdir()
    for name in [*folder.glob("*.png")]:
        name.rename(hidden / name.name)
    ray_command = Path(sys.executable).with_name("ray")
    start = f"{ray_command} start --block --num-cpus=2 --address={cluster.address}"
    start += " --dashboard-agent-listen-port=0 --disable-usage-stats"
    words = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {hidden} && exec {start}"]
    global blind
    blind = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len([node for node in ray.nodes() if node["Alive"]]) < 2:
        time.sleep(0.5)


blind = None

if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        write_images(folder)
        print("\n" + json.dumps(globals()[what](cluster, folder)))
    finally:
        ray.shutdown()
        if blind is not None:
            blind.terminate()
            blind.wait()
        cluster.shutdown()
