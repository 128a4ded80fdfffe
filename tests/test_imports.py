"""Who imports whom: the library without Ray, decode workers without torch, open_clip in one file."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("iqa_core", "jobs") for path in (ROOT / package).rglob("*.py")
)
CORE = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "iqa_core").rglob("[!_]*.py")
)
LIGHT = [
    "iqa_core",
    "iqa_core.images.decode",
    "iqa_core.prompts.pairs",
    "iqa_core.errors",
    "iqa_core.clip.encoder",
    "iqa_core.clip.load",
    "iqa_core.prompts.file",
    "iqa_core.scoring.features",
]


def loaded_by(statement: str, *names: str) -> set[str]:
    """Return which of the packages a fresh interpreter has after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(names) & set(json.loads(run.stdout))


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_bring_no_deep_learning(module):
    assert loaded_by(f"import {module}", "torch", "torchvision", "open_clip", "ray") == set()


def test_the_whole_library_brings_no_ray():
    assert "iqa_core.scoring.scorer" in CORE
    assert loaded_by(f"import {', '.join(CORE)}", "ray", "torch") == {"torch"}


def test_a_name_that_is_not_there():
    import iqa_core

    with pytest.raises(AttributeError, match="module 'iqa_core' has no attribute 'Scorrer'"):
        iqa_core.Scorrer  # noqa: B018
    assert set(iqa_core.__all__) == {"Scorer", "Scores", "__version__"}


def test_only_one_file_imports_open_clip():
    users = [str(path.relative_to(ROOT)) for path in SOURCES if "open_clip" in imports(path)]
    assert users == ["iqa_core/clip/open_clip.py"]


def test_only_jobs_import_ray_and_the_library_no_jobs():
    core = [path for path in SOURCES if "iqa_core" in path.relative_to(ROOT).parts]
    assert core
    assert [path.name for path in core if imports(path) & {"ray", "jobs"}] == []
