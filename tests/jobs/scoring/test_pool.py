"""Tests of jobs/scoring/pool.py: how many actors there are, and what they wait for."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from jobs.scoring.pool import ActorPool, plan_actors, waiting_for

GPUS = [{"CPU": 8}, {"CPU": 16, "GPU": 4}]


class TestPlanning:
    def test_an_actor_for_each_gpu(self):
        assert plan_actors(None, None, None, GPUS) == ActorPool(4, 1.0, 1.0)
        assert plan_actors(None, None, 0.5, GPUS) == ActorPool(8, 1.0, 0.5)

    @pytest.mark.parametrize(
        ("gpus", "each", "fitting"),
        [
            ([1], 0.2, 5),  # 1 // 0.2 is 4 in floating point
            ([4], 0.4, 8),  # two on each; the tenths that are left on four GPUs are of no use
            ([1, 1, 1], 0.1, 30),
            ([4], 2.0, 2),
            ([3, 3], 2.0, 2),  # one on each node
            ([1, 2], 1.0, 3),
            ([2], 0.7, 2),
        ],
    )
    def test_actors_are_counted_for_each_gpu_and_node(self, gpus, each, fitting):
        nodes = [{"CPU": 4, "GPU": number} for number in gpus]
        assert plan_actors(None, None, each, nodes).most == fitting

    def test_each_cpu_has_an_actor_where_there_is_no_gpu(self):
        assert plan_actors(None, None, None, [{"CPU": 8}]) == ActorPool(8, 1.0, 0.0)
        assert plan_actors(None, None, None, [{"CPU": 4}, {"CPU": 4}]) == ActorPool(8, 1.0, 0.0)
        assert plan_actors(None, 2.0, None, [{"CPU": 8}]) == ActorPool(4, 2.0, 0.0)
        # An actor's CPUs are on one node.
        assert plan_actors(None, 2.0, None, [{"CPU": 5}, {"CPU": 3}]) == ActorPool(3, 2.0, 0.0)
        assert plan_actors(None, None, None, [{"CPU": 1}]) == ActorPool(1, 1.0, 0.0)

    def test_gpus_that_are_yet_to_come(self):
        head = [{"CPU": 8}]
        assert plan_actors(4, None, 1.0, head) == ActorPool(4, 1.0, 1.0)
        # The autoscaler's node types say how many there can be: they are used without being asked for.
        assert plan_actors(None, None, None, head, possible_gpus=4) == ActorPool(4, 1.0, 1.0)
        assert plan_actors(None, None, 0.5, head, possible_gpus=4) == ActorPool(8, 1.0, 0.5)
        # Nothing is known of what may come: as many as there will be room for.
        assert plan_actors(None, None, 1.0, head) == ActorPool(None, 1.0, 1.0)
        assert plan_actors(None, None, None, head, possible_gpus=0) == ActorPool(8, 1.0, 0.0)

    def test_cpus_although_there_are_gpus(self):
        assert plan_actors(None, None, 0, GPUS, 4) == ActorPool(24, 1.0, 0)

    def test_one_and_a_half_gpus(self):
        with pytest.raises(
            InputError, match=r"gpus_per_actor \(1\.5\) must be a whole number"
        ) as caught:
            plan_actors(None, None, 1.5, GPUS)
        line = caught.value.on_command_line()
        assert line.startswith(
            "--gpus-per-actor 1.5 must be a whole number where it is above 1: Ray"
        )


class TestWaiting:
    def test_for_what_no_node_has(self):
        assert waiting_for(ActorPool(4, 1.0, 1.0), GPUS) is None
        assert waiting_for(ActorPool(4, 1.0, 1.0), [{"CPU": 8}]) == (
            "waiting for a node with 1 CPU, 1 GPU for a scoring actor (no node has more than 8 CPU, 0 GPU)"
        )
        assert waiting_for(ActorPool(1, 9.0, 0.0), [{"CPU": 8}, {"CPU": 4}]) == (
            "waiting for a node with 9 CPU for a scoring actor (no node has more than 8 CPU)"
        )
        assert waiting_for(ActorPool(1, 1.0, 0.0), []) is not None

    def test_nodes_left_out_are_said_to_ray(self):
        assert ActorPool(1, 1.0, 1.0).label_selector is None
        left_out = ActorPool(1, 1.0, 1.0, left_out=("aa", "bb"))
        assert left_out.label_selector == {"ray.io/node-id": "!in(aa,bb)"}

    def test_in_words(self):
        assert str(ActorPool(1, 1.0, 0.0)) == "at most 1 CPU actor"
        assert str(ActorPool(4, 1.0, 0.5)) == "at most 4 GPU actors"
        assert str(ActorPool(None, 1.0, 1.0)) == "as many GPU actors as the cluster comes to hold"
