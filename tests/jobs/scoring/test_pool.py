"""Tests of jobs/scoring/pool.py: how many actors there are, and what they wait for."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from jobs.node_types import NodeType
from jobs.progress import Waiting
from jobs.scoring.placement import Placement
from jobs.scoring.pool import ActorPool, gpus_per_actor, plan_actors, waiting_for

GPUS = [{"CPU": 8}, {"CPU": 16, "GPU": 4}]


def alive(*resources):
    """Nodes as in ``ray.nodes()``."""
    return [
        {"NodeID": str(number), "Alive": True, "Resources": each, "Labels": {}}
        for number, each in enumerate(resources)
    ]


class TestGpus:
    @pytest.mark.parametrize(
        ("gpus", "each", "present", "possible", "planned"),
        [
            ("auto", None, 0, 0, (0, None)),
            ("auto", None, 0, None, (0, None)),
            ("auto", None, 2, None, (1, None)),
            ("auto", None, 0, 4, (1, None)),  # the autoscaler's node types promise some
            ("auto", 0.5, 0, 4, (0.5, None)),
            ("auto", 1.0, 0, None, (1, None)),
            ("4", None, 0, None, (1, 4)),
            ("4", 2.0, 8, None, (2, 4)),
            ("0", None, 8, 8, (0, 0)),
            ("0", 0.0, 8, 8, (0, 0)),
        ],
    )
    def test_as_many_as_asked_for(self, gpus, each, present, possible, planned):
        assert gpus_per_actor(gpus, each, present, possible) == planned

    def test_rows_of_a_gpu_are_not_continued_on_cpus(self):
        assert gpus_per_actor("auto", None, 0, None, expected=True) == (1, None)
        assert gpus_per_actor("0", None, 0, None, expected=True) == (0, 0)

    def test_one_and_a_half_gpus(self):
        with pytest.raises(InputError) as caught:
            gpus_per_actor("auto", 1.5, 1, 1)
        assert caught.value.on_command_line().startswith(
            "--gpus-per-actor 1.5 must be a whole number where it is above 1: Ray"
        )

    @pytest.mark.parametrize(("gpus", "each"), [("0", 1.0), ("4", 0.0)])
    def test_options_that_contradict_each_other(self, gpus, each):
        with pytest.raises(InputError, match=r"gpus \('\d'\) must be .* with gpus_per_actor"):
            gpus_per_actor(gpus, each, 0, None)

    @pytest.mark.parametrize("gpus", ["-1", "all", "0.5", ""])
    def test_what_is_no_number(self, gpus):
        with pytest.raises(InputError, match="must be auto, or a whole number of GPUs"):
            gpus_per_actor(gpus, None, 0, None)


class TestPlanning:
    def test_an_actor_for_each_gpu(self):
        assert plan_actors(None, None, 1.0, GPUS, GPUS) == ActorPool(4, 1.0, 1.0)
        assert plan_actors(None, None, 0.5, GPUS, GPUS) == ActorPool(8, 1.0, 0.5)

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
        nodes = [{"CPU": 64, "GPU": number} for number in gpus]
        assert plan_actors(None, None, each, nodes, nodes).most == fitting
        assert plan_actors(None, None, each, [{"CPU": 8}], nodes).most == fitting
        assert plan_actors(None, None, each, nodes).first == fitting

    def test_a_pool_that_would_take_all_cpus_leaves_one_and_does_not_grow(self):
        node = {"CPU": 4, "GPU": 2}
        assert plan_actors(None, None, 0.5, [node]) == ActorPool(3, 1.0, 0.5)
        assert plan_actors(None, 0.5, 0.5, [node]) == ActorPool(None, 0.5, 0.5, first=4)

    @pytest.mark.parametrize(
        ("cpus", "nodes", "fitting"),
        [
            (None, [8], 8),
            (None, [4, 4], 8),
            (2.0, [8], 4),
            (2.0, [5, 3], 3),  # an actor's CPUs are on one node
            (None, [1], 1),
            (2.0, [1], 1),
        ],
    )
    def test_each_cpu_has_an_actor_where_there_is_no_gpu(self, cpus, nodes, fitting):
        nodes = [{"CPU": each} for each in nodes]
        assert plan_actors(None, cpus, 0.0, nodes, nodes) == ActorPool(fitting, cpus or 1.0, 0.0)

    def test_gpus_that_are_yet_to_come(self):
        head = [{"CPU": 8}]
        assert plan_actors(4, None, 1.0, head) == ActorPool(4, 1.0, 1.0)
        assert plan_actors(None, None, 1.0, head, most_gpus=4) == ActorPool(4, 1.0, 1.0)
        assert plan_actors(None, None, 0.5, head, most_gpus=4) == ActorPool(8, 1.0, 0.5)
        assert plan_actors(None, None, 2.0, head, most_gpus=4) == ActorPool(2, 1.0, 2.0)
        possible = [{"CPU": 0}, {"CPU": 16, "GPU": 4}, {"CPU": 8}]
        assert plan_actors(None, None, 1.0, head, possible) == ActorPool(4, 1.0, 1.0)

    def test_nodes_that_nobody_announced_are_used_when_they_join(self):
        pool = plan_actors(None, None, 1.0, GPUS)
        assert (pool.most, pool.at_start) == (None, 4)
        pool = plan_actors(None, None, 0.0, [{"CPU": 3}])
        assert (pool.most, pool.at_start) == (None, 3)
        assert plan_actors(None, None, 1.0, [{"CPU": 8}]).at_start == 1

    def test_cpus_although_there_are_gpus(self):
        assert plan_actors(None, None, 0.0, GPUS, GPUS) == ActorPool(24, 1.0, 0.0)


class TestWaiting:
    GPU = NodeType("gpu", {"CPU": 16.0, "GPU": 1.0}, 4)

    def test_for_what_no_node_has(self):
        assert waiting_for(ActorPool(4, 1.0, 1.0), alive(*GPUS)) is None
        assert waiting_for(ActorPool(4, 1.0, 1.0), alive({"CPU": 8})) == Waiting(
            "4 GPUs", "a scoring actor needs 1 CPU, 1 GPU, and no node has more than 8 CPU, 0 GPU"
        )
        assert waiting_for(ActorPool(1, 9.0, 0.0), alive({"CPU": 8}, {"CPU": 4})) == Waiting(
            "a node with 9 CPU", "a scoring actor needs 9 CPU, and no node has more than 8 CPU"
        )
        assert waiting_for(ActorPool(1, 1.0, 0.0), []) is not None

    def test_for_memory(self):
        pool = ActorPool(1, 1.0, 0.0, memory=2**31)
        assert waiting_for(pool, alive({"CPU": 8, "memory": 2**31})) is None
        waiting = waiting_for(pool, alive({"CPU": 8, "memory": 2**30}))
        assert waiting.what == "a node with 1 CPU, 2.0 GiB of memory"

    def test_for_nodes_of_the_autoscaler(self):
        waiting = waiting_for(ActorPool(4, 1.0, 1.0), alive({"CPU": 8}), [self.GPU])
        assert waiting == Waiting("4 GPUs", "node type gpu, 0 of 4 running")

    def test_a_node_that_runs_without_its_gpu_is_no_mystery(self):
        nodes = alive({"CPU": 8}, {"CPU": 16.0})
        nodes[1]["Labels"] = {"ray.io/node-group": "gpu"}
        waiting = waiting_for(ActorPool(1, 1.0, 1.0), nodes, [self.GPU])
        assert waiting == Waiting("1 GPU", "node type gpu, 1 of 4 running")

    def test_nodes_that_are_left_out_or_dead_do_not_count(self):
        (node,) = alive({"CPU": 8, "GPU": 1})
        pool = ActorPool(1, 1.0, 1.0)
        assert waiting_for(pool, [node]) is None
        assert waiting_for(pool.without("0"), [node]) is not None
        assert waiting_for(pool, [node | {"Alive": False}]) is not None

    @pytest.mark.parametrize(
        ("wanted", "fits"),
        [("a", [1]), ("!a", [0, 2]), ("in(a, b)", [1, 2]), ("!in(a,b)", [0]), ("c", [])],
    )
    def test_for_a_label(self, wanted, fits):
        nodes = alive({"CPU": 1}, {"CPU": 1}, {"CPU": 1})
        nodes[1]["Labels"], nodes[2]["Labels"] = {"zone": "a"}, {"zone": "b"}
        pool = ActorPool(1, 1.0, 0.0, score_on=Placement({"zone": wanted}))
        for place, node in enumerate(nodes):
            waiting = waiting_for(pool, [node])
            assert (waiting is None) == (place in fits)
            if waiting:
                assert waiting.what == f"a node with zone={wanted}"

    def test_for_a_node_that_decodes(self):
        nodes = alive({"CPU": 4, "GPU": 1})
        pool = ActorPool(1, 1.0, 1.0, decode_on=Placement({"zone": "a"}))
        assert waiting_for(pool, nodes).what == "a node with zone=a"
        cpus = {"NodeID": "c", "Alive": True, "Resources": {"CPU": 8}, "Labels": {"zone": "a"}}
        assert waiting_for(pool, [*nodes, cpus]) is None

    def test_nodes_left_out_are_said_to_ray(self):
        pool = ActorPool(1, 1.0, 1.0, score_on=Placement({"zone": "a"}))
        options = pool.without("aa").without("bb").score_on.ray_options()
        assert options == {"label_selector": {"zone": "a", "ray.io/node-id": "!in(aa,bb)"}}

    def test_in_words(self):
        assert str(ActorPool(1, 1.0, 0.0)) == "at most 1 CPU actor"
        assert str(ActorPool(4, 1.0, 0.5)) == "at most 4 GPU actors"
        growing = ActorPool(None, 1.0, 1.0, first=2)
        assert str(growing) == "2 GPU actors, and more on nodes that join"
