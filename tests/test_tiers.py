"""Which tests run when: markers that tests bear, and no chaos by accident."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAOS = "tests/jobs/test_chaos.py"


def test_every_marker_is_borne_by_a_test():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    markers = {marker.partition(":")[0] for marker in settings["markers"]}
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert markers == markers & set(re.findall(r"pytest\.mark\.(\w+)", sources))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], False),
        (["-m", "slow or chaos"], False),
        (["-m", "ray"], False),
        (["--chaos", "-m", "chaos"], True),
    ],
)
def test_chaos_runs_only_by_its_own_option(words, chosen):
    words = ["-m", "pytest", "--collect-only", "-q", CHAOS, *words]
    run = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert ("test_every_row_survives_kills_of_each_kind" in run.stdout) is chosen
    assert run.returncode == (0 if chosen else 5)  # 5: no test was collected
