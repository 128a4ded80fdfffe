"""Tests of jobs/scoring/resources.py: what a run takes of a cluster, and what it says of that."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from iqa_core.errors import InputError
from jobs.node_types import Autoscaler, NodeType
from jobs.score import Config
from jobs.scoring.resources import about_gpus, has_amx, plan_pool, precision_of, with_memory

GIB = 2.0**30
GPU = NodeType("gpu", {"CPU": 8.0, "GPU": 1.0, "memory": 32 * GIB}, 4)


@dataclass
class Nodes:
    """The facts of a jobs.cluster.Cluster."""

    nodes: list[dict[str, float]]
    autoscaler: Autoscaler | None = None
    is_local: bool = False

    @property
    def labels(self):
        return [{} for _ in self.nodes]

    @property
    def resources(self):
        return {kind: sum(node.get(kind, 0.0) for node in self.nodes) for kind in ("CPU", "GPU")}

    @property
    def possible_gpus(self):
        if self.is_local:
            return self.resources["GPU"]
        return max(self.resources["GPU"], self.autoscaler.gpus) if self.autoscaler else None


HEAD = {"CPU": 0.0, "memory": 8 * GIB}
CPU = {"CPU": 8.0, "memory": 32 * GIB}
EMPTY = Nodes([HEAD], Autoscaler((GPU,), 8, HEAD))


def options(**given):
    return Config(manifest="m", output="o", **given)


class TestPool:
    def test_an_empty_cluster_has_the_gpus_of_its_node_types(self):
        pool = plan_pool(options(), EMPTY)
        assert (pool.most, pool.gpus, str(pool)) == (4, 1.0, "at most 4 GPU actors")
        assert precision_of(options(), pool, None) == "fp16"
        assert about_gpus(pool, EMPTY) == (
            "0 GPUs now, up to 4 possible: scoring begins once there is one"
        )

    def test_cpus_only_if_asked_for(self):
        pool = plan_pool(options(gpus="0"), EMPTY)
        assert (pool.most, pool.gpus) == (32, 0.0)
        assert precision_of(options(), pool, None) == "fp32"
        assert about_gpus(pool, EMPTY) == (
            "the 4 GPUs that the cluster could start are not used (--gpus 0)"
        )

    def test_without_any_promise_it_is_said(self):
        cluster = Nodes([HEAD, CPU])
        pool = plan_pool(options(), cluster)
        assert (pool.most, pool.at_start, pool.gpus) == (None, 8, 0.0)
        assert "--gpus N would wait for some" in about_gpus(pool, cluster)
        assert plan_pool(options(gpus="2"), cluster).most == 2

    def test_half_precision_is_not_continued_on_cpus(self):
        cluster = Nodes([HEAD, CPU])
        assert plan_pool(options(), cluster, "fp16").gpus == 1.0
        assert plan_pool(options(), cluster, "fp32").gpus == 0.0
        assert plan_pool(options(gpus="0"), cluster, "fp16").gpus == 0.0
        here = Nodes([{"CPU": 8.0}], is_local=True)
        assert plan_pool(options(), here, "fp16").gpus == 0.0  # no GPU will ever come

    def test_a_fleet_of_several_kinds(self):
        large = NodeType("large", {"CPU": 96.0, "GPU": 8.0}, 1)
        cluster = Nodes([HEAD], Autoscaler((GPU, large), 3, HEAD))
        assert plan_pool(options(), cluster).most == 8 + 1 + 1
        assert plan_pool(options(gpus_per_actor=2.0), cluster).most == 4

    @pytest.mark.parametrize(
        "given", [{"gpus": "1"}, {"gpus_per_actor": 1.0}, {"cpus_per_actor": 9.0}]
    )
    def test_a_single_machine_does_not_wait_for_what_never_comes(self, given):
        with pytest.raises(InputError, match="and this machine has 8 CPU"):
            plan_pool(options(**given), Nodes([{"CPU": 8.0, "GPU": 0.0}], is_local=True))


class TestMemory:
    def stated(self, *nodes, autoscaler=None, is_local=False):
        cluster = Nodes(list(nodes), autoscaler, is_local)
        return with_memory(plan_pool(options(), cluster), cluster, object()).memory

    def test_is_stated_on_a_cluster(self):
        assert self.stated(HEAD, CPU) > GIB / 2
        assert self.stated(HEAD, autoscaler=EMPTY.autoscaler) > GIB / 2

    def test_is_not_stated_where_nothing_would_start(self):
        assert self.stated(HEAD, CPU, {"CPU": 2.0, "memory": GIB}) is None
        silent = NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 4)
        assert self.stated(HEAD, autoscaler=Autoscaler((silent,), 4, HEAD)) is None
        assert self.stated(CPU, is_local=True) is None


class TestACpuToDecode:
    """On one machine, which has no other node to decode on."""

    HERE = Nodes([{"CPU": 4.0, "GPU": 1.0}], is_local=True)

    def test_is_left_by_actors_that_share_a_gpu(self):
        assert plan_pool(options(gpus_per_actor=0.25), self.HERE).most == 3
        assert plan_pool(options(gpus_per_actor=0.5, cpus_per_actor=3.0), self.HERE).most == 1
        assert plan_pool(options(gpus="0"), self.HERE).most == 4  # each decodes for itself

    def test_is_not_taken_by_options(self):
        with pytest.raises(InputError) as caught:
            plan_pool(options(cpus_per_actor=4.0), self.HERE)
        assert caught.value.on_command_line() == (
            "--cpus-per-actor 4.0 must be at most 3 here, as one of this machine's 4 CPUs decodes: lower it"
        )
        with pytest.raises(InputError, match=r"num_actors \(4\) must be at most 3 here"):
            plan_pool(options(num_actors=4, gpus_per_actor=0.25), self.HERE)


def test_a_machine_has_no_labels_to_wait_for():
    here = Nodes([{"CPU": 4.0, "GPU": 0.0}], is_local=True)
    with pytest.raises(InputError, match="a scoring actor needs 1 CPU, zone=b, and this machine"):
        plan_pool(options(score_on=("zone=b",)), here)


def test_amx_is_read_from_the_description_of_the_processor(tmp_path):
    (tmp_path / "with").write_text("processor : 0\nflags : fpu amx_bf16 amx_tile\n")
    (tmp_path / "without").write_text("processor : 0\nflags : fpu avx2\n")
    found = [has_amx(tmp_path / name) for name in ("with", "without", "missing")]
    assert found == [True, False, False]
