"""Tests of deploy/requirements.lock, of tools/lock.py and of what is uploaded by `ray job submit`."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.shared import ROOT
from tools import lock


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
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names)


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
    found = zipfile.ZipFile(package).namelist()
    assert "jobs/cli.py" in found
    assert "iqa_core/weights/tiny.safetensors" in found
    assert "pyproject.toml" in found
    assert not any(name.startswith((".venv", "tests/", "docs/", ".git/")) for name in found)
