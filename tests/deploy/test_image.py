"""Tests of deploy/Dockerfile: its steps against the project, and a linter."""

from __future__ import annotations

import re
import subprocess
import tomllib

from jobs.local_ray import KEPT_WORKERS
from tests.deploy.shared import DEPLOY, ROOT, program
from tools import lock


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
    for name, value in KEPT_WORKERS.items():
        assert f"{name}={value}" in dict(steps())["ENV"]


def test_the_image_without_cuda_leaves_cuda_out():
    """The lines that the Dockerfile deletes are those that torch's CPU wheels don't ask for."""
    (pattern,) = re.findall(r"sed -i -E '/(.*?)/d'", " ".join(rest for _, rest in steps()))
    gone = {name for name in lock.read() if re.match(pattern, name)}
    assert {"triton"} <= gone
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in gone)
    assert len(gone) > 10


def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [program("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
