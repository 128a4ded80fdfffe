"""Tests of jobs/scoring/placement.py: options and labels of a cluster become options of Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ray._common.ray_option_utils import validate_task_options

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from jobs.node_types import Autoscaler, NodeType
from jobs.scoring.placement import Placement, actor_bytes, placement_of

NOTHING = SimpleNamespace(labels=[{}], nodes=[{"CPU": 8.0}], autoscaler=None, is_local=False)


def placed(*words, stage="decode", cluster=NOTHING):
    return placement_of(stage, words, f"{stage}_on", cluster)


def test_scoring_is_anywhere_without_options():
    assert placed(stage="score").ray_options() == {}


def test_labels_and_custom_resources():
    placement = placed("market=spot", "ray.io/zone=in(a,b)", "decoders:0.5")
    assert placement.ray_options() == {
        "label_selector": {"market": "spot", "ray.io/zone": "in(a,b)"},
        "resources": {"decoders": 0.5},
    }
    assert str(placement) == "market=spot, ray.io/zone=in(a,b), 0.5 decoders"


@pytest.mark.parametrize("word", ["spot", "=spot", "market=", "decoders:", "decoders:no", "a:-1"])
def test_what_is_neither(word):
    with pytest.raises(InputError, match="must be KEY=VALUE, a label of nodes, or NAME:AMOUNT"):
        placed(word)


@pytest.mark.parametrize(
    "cluster",
    [
        SimpleNamespace(
            labels=[{}, {"iqa-stage": "decode"}], nodes=[{}, {}], autoscaler=None, is_local=False
        ),
        SimpleNamespace(
            labels=[{}],
            nodes=[{}],
            is_local=False,
            autoscaler=Autoscaler((NodeType("cpu", {"CPU": 8.0}, 2, {"iqa-stage": "decode"}),), 2),
        ),
    ],
)
def test_nodes_that_the_cluster_labels_for_a_stage_come_first(cluster):
    options = placed(cluster=cluster).ray_options()
    assert options["label_selector"] == {"iqa-stage": "decode"}
    validate_task_options(options, in_options=True)
    assert placed(stage="score", cluster=cluster).ray_options() == {}
    asked = placed("market=spot", cluster=cluster).ray_options()
    assert asked == {"label_selector": {"market": "spot"}}


def test_nodes_without_gpus_decode_first():
    names = [{"ray.io/node-id": name} for name in ("aa", "bb", "cc")]
    nodes = [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]
    cluster = SimpleNamespace(labels=names, nodes=nodes, autoscaler=None, is_local=False)
    options = placed(cluster=cluster).ray_options()
    selector = options["label_selector"]
    assert selector["ray.io/node-id"] == "!in(bb,cc)"
    assert {"A10G", "H100"} <= set(selector["ray.io/accelerator-type"][4:-1].split(","))
    assert options["fallback_strategy"] == [{"label_selector": {}}]
    validate_task_options(options, in_options=True)
    assert placed(stage="score", cluster=cluster).ray_options() == {}


def test_only_nodes_with_gpus_decode_too():
    nodes = [{"CPU": 0.0}, {"CPU": 8.0, "GPU": 1.0}]
    cluster = SimpleNamespace(
        labels=[{}, {"ray.io/node-id": "aa"}], nodes=nodes, autoscaler=None, is_local=False
    )
    assert placed(cluster=cluster).ray_options() == {}


def test_nodes_that_are_left_out_are_so_in_the_second_choice_too():
    options = Placement(preferred={"iqa-stage": "score"}, left_out=("aa",)).ray_options()
    assert options == {
        "label_selector": {"ray.io/node-id": "!in(aa)", "iqa-stage": "score"},
        "fallback_strategy": [{"label_selector": {"ray.io/node-id": "!in(aa)"}}],
    }


def test_the_memory_of_an_actor_grows_with_its_weights():
    small, large = torch.nn.Linear(10, 10), torch.nn.Linear(1000, 1000)
    grown = actor_bytes(large, 0) - actor_bytes(small, 0)
    assert grown == 4 * (1000 * 1001 - 10 * 11)
    assert actor_bytes(object(), 1) > actor_bytes(object(), 0) > 0
    image = load_towers("tiny").image
    weights = sum(each.nbytes for each in image.built.parameters())
    assert actor_bytes(image, 0) - actor_bytes(object(), 0) == weights > 0
