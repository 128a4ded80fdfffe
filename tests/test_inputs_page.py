"""Holds docs/inputs.md to the tests: each line of its tables names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/inputs.md"
NAMED = re.compile(r"`((?:\w+/)*test_\w+\.py)::(\w+)(?:::(\w+))?`")


def defined(path):
    """Return the names of a file's tests, those of classes as Class::test."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            tests = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            names |= {f"{node.name}::{one.name}" for one in tests}
    return names


def lines_of_tables():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [row for row in rows if not row.startswith(("|---", "| input |"))]


def test_each_line_names_tests_that_exist():
    files = {
        str(path.relative_to(ROOT / "tests")): defined(path)
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    wrong = []
    for row in lines_of_tables():
        named = NAMED.findall(row.rstrip(" |").rpartition("|")[2])
        if not named:
            wrong.append(f"names no test: {row}")
        for file, *names in named:
            name = "::".join(filter(None, names))
            if name not in files.get(file, ()):
                wrong.append(f"{file}::{name} is no test: {row}")
    assert wrong == []


def test_each_kind_has_lines():
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    empty = [section.partition("\n")[0] for section in sections if section.count("\n| ") < 4]
    assert len(sections) == 7
    assert empty == []
