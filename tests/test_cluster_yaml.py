"""The files for `ray up`: Ray's own validation, and what it would send to AWS."""

from __future__ import annotations

import copy
import fnmatch
import json
from pathlib import Path

import boto3
import botocore.client
import pytest
import yaml
from jsonschema import ValidationError
from moto import mock_aws
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.local_ray import KEPT_WORKERS

ROOT = Path(__file__).parents[1]
FILE = ROOT / "cluster.yaml"
FILES = [FILE, ROOT / "deploy/gcp.yaml", ROOT / "deploy/onprem.yaml"]


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def config() -> dict:
    return read(FILE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_takes_it(path):
    prepared = prepare_config(read(path))
    validate_config(prepared)
    text = path.read_text(encoding="utf-8")
    assert (
        "RAY_JOB_STOP_WAIT_TIME_S=60 ray start --head" in text
    )  # a stopped run writes what is finished
    # A token that an earlier local Ray left on the head would keep workers out.
    commands = [*prepared["head_start_ray_commands"], *prepared["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=" in command for command in starts)
    kept = "".join(f"export {name}={value};" for name, value in KEPT_WORKERS.items())
    assert all(kept in command for command in starts)
    assert "deploy/requirements.lock" in " ".join(prepared["setup_commands"])
    assert text.count("# CHANGE") >= 3


@pytest.mark.parametrize("path", FILES[:2], ids=lambda path: path.name)
def test_nothing_is_paid_for_until_a_job_asks_for_it(path):
    kinds = prepare_config(read(path))["available_node_types"]
    assert set(kinds) == {"head", "decode", "gpu"}
    assert kinds["head"]["resources"]["CPU"] == 0  # the driver is alone there
    assert kinds["decode"]["min_workers"] == kinds["gpu"]["min_workers"] == 0
    assert "GPU" not in kinds["decode"]["resources"]
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert kinds["decode"]["labels"] == {"iqa-stage": "decode"}
    assert kinds["gpu"]["labels"] == {"iqa-stage": "score"}


def test_unknown_key_is_refused(config):
    broken = copy.deepcopy(config) | {"idle_timeout_minuets": 5}
    with pytest.raises(ValidationError, match="idle_timeout_minuets"):
        validate_config(prepare_config(broken))


def test_unknown_head_type_is_refused(config):
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config | {"head_node_type": "haed"}))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_its_commands_use_the_gpus(path):
    text = path.read_text(encoding="utf-8").replace("\\\n#", "")
    (submit,) = [line for line in text.splitlines() if "python -m jobs score" in line]
    assert "--gpus " in submit  # it waits for them


def allowed_by_the_policy():
    """Return the resources of each action of the role that all nodes have."""
    policy = json.loads((ROOT / "deploy/aws-policy.json").read_text(encoding="utf-8"))
    allowed = {}
    for statement in policy["Statement"]:
        actions, resources = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            allowed[action] = [resources] if isinstance(resources, str) else resources
    return allowed


def test_the_role_may_do_what_the_head_does(config):
    allowed = allowed_by_the_policy()
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "s3:PutObject"} <= set(allowed)
    profiles = set()
    for kind in config["available_node_types"].values():
        profiles.add(kind["node_config"]["IamInstanceProfile"]["Name"])
        # The head starts the workers: it resolves their images.
        image = kind["node_config"]["ImageId"].removeprefix("resolve:ssm:")
        (pattern,) = allowed["ssm:GetParameters"]
        assert fnmatch.fnmatch(f"arn:aws:ssm:us-west-2::parameter{image}", pattern)
    (profile,) = profiles
    assert any(name.endswith(f"role/{profile}") for name in allowed["iam:PassRole"])
    trust = json.loads((ROOT / "deploy/aws-trust.json").read_text(encoding="utf-8"))
    assert trust["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}


def make_role():
    """Do what the first lines of cluster.yaml say."""
    iam = boto3.client("iam", "us-west-2")
    trust, policy = ((ROOT / f"deploy/aws-{name}.json").read_text() for name in ("trust", "policy"))
    role, profile = {"RoleName": "distributed-iqa"}, {"InstanceProfileName": "distributed-iqa"}
    iam.create_role(**role, AssumeRolePolicyDocument=trust)
    iam.put_role_policy(**role, PolicyName="distributed-iqa", PolicyDocument=policy)
    iam.create_instance_profile(**profile)
    iam.add_role_to_instance_profile(**role, **profile)


@pytest.fixture
def started(config, tmp_path, monkeypatch):
    """What Ray sends to AWS (moto, in this process) for one node of each type: RunInstances by type."""
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair that Ray makes
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    sent = {}
    call = botocore.client.BaseClient._make_api_call

    def noted(client, operation, parameters):
        if operation == "RunInstances":
            tags = {tag["Key"]: tag["Value"] for tag in parameters["TagSpecifications"][0]["Tags"]}
            sent[tags["ray-user-node-type"]] = parameters
        return call(client, operation, parameters)

    with mock_aws():
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        (tmp_path / ".ssh").mkdir()
        make_role()
        made = bootstrap_aws(prepare_config(config))
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)
        provider = AWSNodeProvider(made["provider"], made["cluster_name"])
        for name, kind in made["available_node_types"].items():
            is_head = name == made["head_node_type"]
            node = kind["node_config"] | (made["head_node"] if is_head else {})
            tags = {"ray-node-type": "head" if is_head else "worker", "ray-user-node-type": name}
            provider.create_node(copy.deepcopy(node), tags, count=1)
    return sent


@pytest.mark.slow
def test_what_ray_up_sends_to_aws(started, config):
    assert set(started) == {"head", "decode", "gpu"}
    for name, request in started.items():
        wanted = config["available_node_types"][name]["node_config"]
        assert request["InstanceType"] == wanted["InstanceType"]
        assert request["ImageId"].startswith("resolve:ssm:/aws/service/")
        # Workers, too: Ray makes a role for the head alone.
        assert request["IamInstanceProfile"] == {"Name": "distributed-iqa"}
        assert request["MaxCount"] == 1
        assert request["SecurityGroupIds"]
        assert request["KeyName"]
        (disk,) = request["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= 100  # spilled objects and the CUDA wheels
        spot = request.get("InstanceMarketOptions")
        assert spot == (None if name == "head" else {"MarketType": "spot"})
    assert started["gpu"]["ImageId"] != started["decode"]["ImageId"]  # only one has the driver
