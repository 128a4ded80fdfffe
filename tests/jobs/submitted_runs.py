"""Runs that test_submit.py submits to a cluster with logical GPUs: ``submitted_runs.py WHAT FOLDER``.

The towers only pretend to be on a device, as in gpu_runs.py. What was found is in ``FOLDER/WHAT.json``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import gpu_runs
from gpu_runs import command, pretend
from ray import cloudpickle
from ray.util.state import list_actors, list_nodes, list_tasks

STEPS = ("--steps", 4, "--checkpoint-steps", 2, "--list-size", 4, "--pairs", "clip-iqa")
IMAGES = ("--batch-size", 4)


class Placed:
    """Where Ray's state API says that tasks and actors ran, since it was asked before."""

    def __init__(self):
        self.seen = set()
        self.options = {"address": os.environ["RAY_ADDRESS"], "limit": 10_000}
        self.options["raise_on_missing_output"] = False

    def since(self):
        """Return name -> address of the node -> number."""
        deadline = time.monotonic() + 30
        while True:
            tasks = [task for task in list_tasks(**self.options) if task.task_id not in self.seen]
            running = [task for task in tasks if task.state not in ("FINISHED", "FAILED")]
            if (tasks and not running) or time.monotonic() > deadline:
                break
            time.sleep(1)  # workers report once a second
        actors = [actor for actor in list_actors(**self.options) if actor.actor_id not in self.seen]
        nodes = {node.node_id: node.node_ip for node in list_nodes(**self.options)}
        found = defaultdict(Counter)
        for task in tasks:
            if task.type == "NORMAL_TASK" and task.node_id:
                found[task.name][nodes[task.node_id]] += 1
        for actor in actors:
            if actor.node_id:
                found[actor.class_name][nodes[actor.node_id]] += 1
        self.seen |= {task.task_id for task in tasks} | {actor.actor_id for actor in actors}
        return found


def everything(folder):
    """Each command once, and where its tasks and actors ran."""
    manifest = ("--manifest", folder / "m.parquet", *IMAGES)
    shared = "--shared-filesystem"
    runs, placed = {}, Placed()
    runs["refused"] = command("score", *manifest, "--output", folder / "refused")

    def run(name, *words):
        runs[name] = command(*words)
        runs[name]["placed"] = placed.since()
        summary = folder / name / "_run/summary.json"
        runs[name]["summary"] = json.loads(summary.read_text()) if summary.exists() else None

    run("score", "score", *manifest, "--output", folder / "score", shared)
    where = ("--decode-on", "zone=gpu", "--score-on", "zone=gpu", "scorers:0.5")
    run("embed", "embed", *manifest, "--output", folder / "embed", shared, *where)
    learned = folder / "learned.safetensors"
    words = ("--features", folder / "embed", "--output", learned, "--num-workers", 2)
    words = (*words, *STEPS, "--holdout", 0.2)
    runs["train refused"] = command("train", *words)
    run("train", "train", *words, shared)
    features = ("--features", folder / "embed", "--prompts", learned)
    runs["rescore"] = command("rescore", *features, "--output", folder / "rescore")
    for output in ("score", "embed", "rescore"):
        words = ("--scores", folder / output, "--manifest", folder / "m.parquet")
        runs[f"verify {output}"] = command("verify", *words)
    return runs


def slow(folder):
    """A run that is long enough for a node to be killed and another one to join."""
    words = ("--manifest", folder / "slow.parquet", "--output", folder / "slow", *IMAGES)
    return command("score", *words, "--commit-seconds", 1, "--shared-filesystem")


def grown(folder):
    """A run on GPUs that the autoscaler has yet to start."""
    words = ("--manifest", folder / "slow.parquet", "--output", folder / "grown", *IMAGES)
    # Ray's fake provider ends nodes without a word, and now and then a task with them.
    return command("score", *words, "--shared-filesystem", "--stall-minutes", "0.5")


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    cloudpickle.register_pickle_by_value(
        gpu_runs
    )  # nodes have what is submitted, and not this folder
    pretend()
    (folder / f"{what}.json").write_text(json.dumps(globals()[what](folder)))
