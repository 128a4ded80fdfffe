"""Tests of tools/local_cluster.py without a cluster; tests/jobs/test_submit.py starts some."""

from __future__ import annotations

import json

from tools.local_cluster import LocalCluster, NodeSpec


def test_a_node_in_words():
    spec = NodeSpec.of("cpus=4,gpus=1,zone=a")
    assert spec == NodeSpec(4, 1, {"zone": "a"})
    assert spec.options() == ["--num-cpus=4", "--num-gpus=1", "--labels=zone=a"]
    assert NodeSpec.of("") == NodeSpec(2, 0)


def test_node_types_are_where_ray_up_leaves_them(monkeypatch):
    from jobs.node_types import find_autoscaler

    kind = {"resources": {"CPU": 2, "GPU": 1}, "min_workers": 0, "max_workers": 3}
    cluster = LocalCluster(head=NodeSpec(cpus=1), autoscaler={"gpu": kind})
    try:
        monkeypatch.setattr("jobs.node_types._reported", lambda: None)
        monkeypatch.setenv("HOME", cluster.environment["HOME"])
        found = find_autoscaler()
        assert [(each.name, each.most) for each in found.types] == [("gpu", 3)]
        assert found.head == {"CPU": 1.0, "GPU": 0.0}
    finally:
        cluster.__exit__()


def test_its_configuration_is_one_of_rays(monkeypatch):
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    kind = {"resources": {"CPU": 2, "GPU": 1}, "min_workers": 0, "max_workers": 3}
    cluster = LocalCluster(autoscaler={"gpu": kind})
    try:
        (option,) = [
            word for word in cluster._head_options if word.startswith("--autoscaling-config=")
        ]
        with open(option.partition("=")[2], encoding="utf-8") as file:
            validate_config(prepare_config(json.load(file)))
    finally:
        cluster.__exit__()
