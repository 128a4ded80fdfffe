"""Tests of deploy/kuberay/: KubeRay's and Kubernetes' schemas, and the commands of the jobs."""

from __future__ import annotations

import shlex

import jsonschema
import pytest
import yaml

from tests.deploy.kuberay_schema import RAY_JOB
from tests.deploy.shared import DEPLOY, parses
from tools import lock


def merged(document, patch):
    """Return a document with a strategic merge patch applied; lists are not merged here."""
    if not isinstance(patch, dict) or not isinstance(document, dict):
        assert not isinstance(patch, list)
        return patch
    return document | {key: merged(document.get(key), value) for key, value in patch.items()}


def documents(folder):
    """Return the resources of a kustomization, as far as this project's use it."""
    config = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "resources", "patches", "nameSuffix", "images"}
    assert set(config) <= known
    assert config["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    found = []
    for name in config["resources"]:
        path = (folder / name).resolve()
        found += documents(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in config.get("patches", []):
        change = yaml.safe_load(patch["patch"])
        key = change["kind"], change["metadata"]["name"]
        (target,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == key]
        found[found.index(target)] = merged(target, change)
    return found


def ray_job(name):
    (job,) = [each for each in documents(DEPLOY / "kuberay" / name) if each["kind"] == "RayJob"]
    return job


@pytest.mark.parametrize("name", ["base", "score", "embed", "train"])
def test_ray_jobs_follow_kuberay(name):
    job = ray_job(name)
    jsonschema.validate(job, RAY_JOB)
    spec = job["spec"]
    assert spec["backoffLimit"] == 10  # the same command resumes
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == lock.read()["ray"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"decode", "gpu"}
    assert all(group["minReplicas"] == 0 for group in groups.values())


def test_a_typo_in_a_ray_job_is_found():
    job = ray_job("score")
    job["spec"]["backofLimit"] = 3
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        jsonschema.validate(job, RAY_JOB)


@pytest.mark.parametrize("name", ["score", "embed", "train"])
def test_ray_jobs_run_commands_of_this_project(name):
    program, *words = shlex.split(ray_job(name)["spec"]["entrypoint"])
    assert (program, words[0]) == ("iqa", name)
    assert parses(words)
    assert yaml.safe_load((DEPLOY / f"kuberay/{name}/kustomization.yaml").read_text())[
        "nameSuffix"
    ] == (f"-{name}")


def pods():
    cluster = ray_job("score")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_pods_are_what_kubernetes_takes():
    validate = pytest.importorskip("kubernetes_validate").validate
    for template in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "iqa"}, **template}
        validate(pod, "1.30", strict=True)
    (account,) = [
        each for each in documents(DEPLOY / "kuberay/base") if each["kind"] == "ServiceAccount"
    ]
    validate(account, "1.30", strict=True)
    assert {template["spec"]["serviceAccountName"] for template in pods()} == {
        account["metadata"]["name"]
    }


def test_pods_mount_only_their_volumes_and_have_no_root():
    for template in pods():
        spec = template["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["image"] == "iqa:cuda"  # of base/kustomization.yaml's images
