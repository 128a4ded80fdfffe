"""cluster.yaml passes the validation that `ray up` begins with; no cloud is asked."""

from __future__ import annotations

import copy
import fnmatch
import json
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


def test_every_node_may_read_the_bucket(config):
    """Ray gives a role of its own to the head alone."""
    profiles = {
        kind["node_config"]["IamInstanceProfile"]["Name"]
        for kind in prepare_config(config)["available_node_types"].values()
    }
    policy = json.loads((FILE.parent / "deploy/aws-policy.json").read_text(encoding="utf-8"))
    allowed = {}
    for statement in policy["Statement"]:
        actions, resources = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            allowed[action] = [resources] if isinstance(resources, str) else resources
    # The head starts the workers: it resolves their image and hands its role on.
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "s3:PutObject"} <= set(allowed)
    assert any(
        name.endswith(f"role/{profile}") for profile in profiles for name in allowed["iam:PassRole"]
    )
    for kind in config["available_node_types"].values():
        image = kind["node_config"]["ImageId"].removeprefix("resolve:ssm:")
        (pattern,) = allowed["ssm:GetParameters"]
        assert fnmatch.fnmatch(f"arn:aws:ssm:us-west-2::parameter{image}", pattern)
    trust = json.loads((FILE.parent / "deploy/aws-trust.json").read_text(encoding="utf-8"))
    assert trust["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert len(profiles) == 1


def test_the_head_drives_and_its_command_uses_the_gpus(config):
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    text = FILE.read_text(encoding="utf-8").replace("\\\n#", "")
    (submit,) = [line for line in text.splitlines() if "python -m jobs score" in line]
    assert "--gpus-per-actor 1" in submit


def test_unknown_key_is_refused(config):
    broken = copy.deepcopy(config) | {"idle_timeout_minuets": 5}
    with pytest.raises(ValidationError, match="idle_timeout_minuets"):
        validate_config(prepare_config(broken))


def test_unknown_head_type_is_refused(config):
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config | {"head_node_type": "haed"}))
