"""Tests of jobs/node_types.py: the largest cluster that an autoscaler can make."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs import node_types
from jobs.node_types import NodeType, autoscaler_of, find_autoscaler

ROOT = Path(__file__).parents[2]
KINDS = {
    "head": {"resources": {"CPU": 0}},
    "small": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 5},
    "large": {"resources": {"CPU": 32, "GPU": 8}, "max_workers": 2, "labels": {"zone": "a"}},
    "cpu": {"resources": {"CPU": 64}},
}
CONFIG = {"max_workers": 3, "head_node_type": "head", "available_node_types": KINDS}


def test_cluster_yaml_promises_gpus():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    gpu = config["available_node_types"]["gpu"]
    found = autoscaler_of(config)
    assert found.gpus == gpu["max_workers"] * gpu["resources"]["GPU"] > 0
    assert "gpu" in [each.name for each in found.with_gpus()]


def test_the_limit_of_all_workers_counts():
    found = autoscaler_of(CONFIG)
    assert found.gpus == 8 + 8 + 1
    assert [node["CPU"] for node in found.nodes("CPU")] == [0, 64, 64, 64]
    assert {each.name: each.most for each in found.types} == {"small": 5, "large": 2, "cpu": 3}
    assert found.types[1].labels == {"zone": "a"}


def test_a_heads_gpus_count():
    kinds = KINDS | {"head": {"resources": {"CPU": 8, "GPU": 2}}}
    assert autoscaler_of(CONFIG | {"available_node_types": kinds}).gpus == 8 + 8 + 1 + 2


@pytest.mark.parametrize("config", [None, [], {}, {"available_node_types": {"a": None}}])
def test_no_configuration(config):
    with pytest.raises(ValueError, match="no cluster configuration"):
        autoscaler_of(config)


class TestRunning:
    TYPE = NodeType("gpu", {"CPU": 4.0, "GPU": 1.0}, 2)

    @pytest.mark.parametrize(
        ("node", "counts"),
        [
            ({"Labels": {"ray.io/node-group": "gpu"}, "Resources": {}}, 1),
            ({"Labels": {"ray.io/node-group": "cpu"}, "Resources": {"CPU": 4, "GPU": 1}}, 0),
            ({"Labels": {}, "Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 9.0}}, 1),
            ({"Labels": {}, "Resources": {"CPU": 4.0}}, 0),
            ({"Labels": {}, "Resources": {"CPU": 4.0, "GPU": 1.0}, "Alive": False}, 0),
        ],
    )
    def test_by_name_or_else_by_resources(self, node, counts):
        assert self.TYPE.running([{"Alive": True} | node]) == counts


class TestFinding:
    @pytest.fixture(autouse=True)
    def nothing_reported(self, monkeypatch):
        monkeypatch.setattr(node_types, "_reported", lambda: None)

    def find(self, monkeypatch, home, config):
        monkeypatch.setenv("HOME", str(home))
        (home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return find_autoscaler()

    def test_what_ray_up_leaves_on_the_head(self, monkeypatch, tmp_path):
        assert self.find(monkeypatch, tmp_path, CONFIG) == autoscaler_of(CONFIG)

    def test_on_premises_nodes_are_known_only_once_they_run(self, monkeypatch, tmp_path):
        kinds = {"head": {}, "worker": {"resources": {}}}
        config = CONFIG | {"available_node_types": kinds}
        assert self.find(monkeypatch, tmp_path, config) is None

    def test_none(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert find_autoscaler() is None
