"""docs/architecture.md against the tree: a line for each folder, and the imports that the test allows."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_imports import BOTTOM, MAY_IMPORT, reachable

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def section(title):
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_tree_has_a_line_for_each_folder():
    tree = section("The tree")
    core = re.findall(r"^      ([\w./]+) ", tree.partition("    jobs/")[0], re.MULTILINE)
    there = {path.name for path in (ROOT / "iqa_core").iterdir() if path.name != "__pycache__"}
    there -= {"__init__.py", "py.typed"}
    assert {name.rstrip("/") for name in core} == there
    jobs = re.findall(r"^      (\w+)/ ", tree.partition("    jobs/")[2], re.MULTILINE)
    folders = {path.name for path in (ROOT / "jobs").iterdir() if path.is_dir()}
    assert set(jobs) == folders - {"__pycache__"}


def test_the_table_of_imports_is_that_of_the_test():
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", section("Who imports whom"), re.MULTILINE)
    page = {}
    for parts, imported in rows:
        for part in re.findall(r"`(\w+)`", parts):
            page[part] = (imported, set(re.findall(r"`(\w+)`", imported)))
    assert set(page) == {*MAY_IMPORT, "jobs"} - BOTTOM - {"__init__"}
    for part, (text, names) in page.items():
        if part == "jobs":
            continue
        if "each other" in text:
            names = names | {"prompts", "scoring"} - {part}
        stated = names | (BOTTOM if "bottom" in text else set())
        # what `tests/test_imports.py` allows as single modules only
        single = {"storage": {"fetch"}, "training": {"evaluation"}}.get(part, set())
        assert stated - single == MAY_IMPORT[part], part
        assert not single & reachable(part)
