"""Tests of jobs/scoring/local_data.py: with a local Ray of its own, and in one that is no local one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.data._internal.cluster_autoscaler import AutoscalingCoordinator
from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler as autoscaler
from ray.data._internal.execution.operators import actor_pool_map_operator as actors
from ray.data._internal.stats import _StatsManager

from jobs.scoring.local_data import _OneNode, only_needed_actors

ROOT = Path(__file__).parents[3]

#: Doubles numbers by a pool of actors, within the context and after it, and tells which actors have names.
PROGRAM = """
import json
import ray
from jobs.cluster import Cluster
from jobs.scoring.dataset import set_up_ray_data
from jobs.scoring.local_data import only_needed_actors

class Double:
    def __call__(self, batch):
        return {"id": 2 * batch["id"]}

def double():
    import ray.data
    set_up_ray_data()
    chain = ray.data.range(100).map_batches(
        Double, batch_size=10, num_cpus=0.5, compute=ray.data.ActorPoolStrategy(size=2)
    )
    doubled = sum(row["id"] for row in chain.take_all())
    named = ray.util.list_named_actors(all_namespaces=True)
    return doubled, sorted(actor["name"].lstrip("_") for actor in named)

with Cluster(None) as cluster:
    cluster.start()
    with only_needed_actors(cluster):
        within = double()
    print(json.dumps({"within": within, "after": double()}))
"""


@pytest.mark.ray
def test_a_local_ray_has_no_actors_that_it_does_not_need():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["within"] == [9900, []]
    assert found["after"][0] == 9900
    assert {"ActorLocationTracker", "AutoscalingCoordinator"} <= set(found["after"][1])


def test_what_stands_for_the_coordinator_has_its_methods():
    assert vars(_OneNode).keys() >= AutoscalingCoordinator.__abstractmethods__


def test_in_a_cluster_nothing_changes():
    def now():
        return (
            dict(vars(_StatsManager)),
            autoscaler.DefaultAutoscalingCoordinator,
            actors.get_or_create_actor_location_tracker,
            actors.get_actor_locations,
        )

    before = now()
    with only_needed_actors(SimpleNamespace(is_local=False)):
        assert now() == before
