"""cluster.yaml passes the validation that `ray up` begins with; no cloud is asked."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[1] / "cluster.yaml"


@pytest.fixture
def config() -> dict:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_cluster_yaml_is_valid(config):
    prepared = prepare_config(config)
    validate_config(prepared)
    gpu = prepared["available_node_types"]["gpu"]
    assert gpu["min_workers"] == 0  # nothing is paid for until a job asks for it
    assert gpu["resources"]["GPU"] == 1


def test_unknown_key_is_refused(config):
    broken = copy.deepcopy(config) | {"idle_timeout_minuets": 5}
    with pytest.raises(ValidationError, match="idle_timeout_minuets"):
        validate_config(prepare_config(broken))


def test_unknown_head_type_is_refused(config):
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config | {"head_node_type": "haed"}))
