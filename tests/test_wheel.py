"""The built wheel, installed, in working folders that hold files of our names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[1]

#: What a working folder may hold; importing any of it must not happen.
DECOYS = {
    "packages": ["jobs/__init__.py", "iqa_core/__init__.py", "tests/__init__.py"],
    "modules": ["jobs.py", "iqa_core.py", "iqa_jobs.py", "tests.py", "tools.py", "score.py"],
}


def run(*words, **options):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=250, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def iqa(tmp_path_factory):
    """The command `iqa` of an environment that has the wheel, and all else from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("iqa_core", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", "pip", *words, "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # As a path only, so that this environment's own installation of the project does not count.
    (site / "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ("install", "-q", "--no-deps", "--no-index", "--no-compile", "--prefix", environment)
    run(sys.executable, "-m", "pip", *words, "--ignore-installed", wheel)
    return environment / "bin/iqa"


@pytest.fixture(scope="module")
def manifest(iqa, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    path = folder / "m.parquet"
    run(iqa, "manifest", folder, "--output", path)
    return path


def test_the_wheel_takes_no_common_name(iqa):
    (site,) = iqa.parents[1].glob("lib/python*/site-packages")
    ours = {path.name for path in site.iterdir() if not path.name.endswith((".dist-info", ".pth"))}
    assert ours == {"iqa_core", "iqa_jobs"}


@pytest.mark.parametrize("decoys", DECOYS)
def test_files_of_our_names_are_not_imported(iqa, manifest, tmp_path, decoys):
    for name in DECOYS[decoys]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('a decoy was imported')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = ("score", "--manifest", manifest, "--output", "scores")
    done = run(iqa, *words, cwd=tmp_path, env=environment)
    assert "4 rows in, 4 rows out: none missing, none twice" in done.stdout
    assert done.stdout.count("\n") < 10
    done = run(iqa, "verify", "--scores", "scores", "--manifest", manifest, cwd=tmp_path)
    assert "none missing" in done.stdout
