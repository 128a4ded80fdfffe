"""Who imports whom: layers, circles, and the packages that only some modules may import.

The rules of the tree, as tables. An import that breaks one is printed with its file and line.
"""

from __future__ import annotations

import ast
import graphlib
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from jobs.cli import COMMANDS

ROOT = Path(__file__).parents[1]
BOTTOM = {"errors", "columns", "redaction", "preprocess", "limits"}

#: Part of iqa_core -> the parts that it imports; it may import what these may import, too.
MAY_IMPORT = {
    "errors": set(),
    "columns": set(),
    "redaction": set(),
    "preprocess": set(),
    "limits": set(),
    "storage": BOTTOM,
    "images": {"storage"},
    "fetch": {"storage"},
    "tables": {"storage"},
    "duplicates": {"tables"},
    "clip": BOTTOM,
    "prompts": {"clip", "images", "scoring"},
    "scoring": {"clip", "images", "prompts"},
    "losses": BOTTOM,
    "training": {"prompts", "scoring", "losses", "tables"},
    "evaluation": {"tables"},
    "releases": {"tables"},
    "exporting": {"tables", "fetch", "images"},
    "selecting": {"tables"},
    "pages": {"evaluation", "tables", "images", "fetch"},
    "__init__": {"scoring"},
}

#: Single modules beyond the table: importing part -> modules.
ALSO = {
    "storage": {"iqa_core.fetch.http", "iqa_core.fetch.uri"},  # when a store is a web server
    "training": {"iqa_core.evaluation.correlations"},
    "selecting": {"iqa_core.evaluation.labelling"},
}

#: Packages that only these files or folders import.
ONLY_IN = {
    "ray": ("jobs/",),
    "jobs": ("jobs/",),
    "open_clip": ("iqa_core/clip/open_clip.py",),
    "aiohttp": ("iqa_core/fetch/",),
    "faiss": ("iqa_core/duplicates/indexed_search.py",),
    **dict.fromkeys(
        ("datasets", "webdataset", "lance", "deltalake", "pyiceberg"), ("iqa_core/exporting/",)
    ),
    "duckdb": ("iqa_core/selecting/",),
}

#: Parts that do not import torch, not even within a function.
WITHOUT_TORCH = {
    *BOTTOM,
    "storage",
    "tables",
    "fetch",
    "duplicates",
    "pages",
    "evaluation",
    "releases",
    "exporting",
    "selecting",
}

MOST_LINES = 350

#: Imports that break a rule, with the reason: (file, imported module).
KNOWN: dict[tuple[str, str], str] = {}

#: Files that are too long, with the reason.
KNOWN_LONG: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """One imported module; an import statement may have several."""

    file: str
    line: int
    text: str
    importer: str
    target: str
    in_function: bool

    @property
    def key(self):
        return self.file, self.target

    def __str__(self):
        return f"{self.file}:{self.line}: {self.text}"


def sources():
    return sorted(path for name in ("iqa_core", "jobs") for path in (ROOT / name).rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def targets_of(node, path, modules):
    """Return the modules that an import statement names; ``from package import module`` is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    name = node.module or ""
    if node.level:
        package = path.relative_to(ROOT).parts[: -node.level]
        name = ".".join([*package, *name.split(".")] if name else package)
    inner = [f"{name}.{alias.name}" for alias in node.names]
    targets = [module for module in inner if module in modules]
    return targets if len(targets) == len(inner) else [name, *targets]


@cache
def imports():
    """Return every import of the two packages, also those in functions and for types only."""
    modules = {module_of(path) for path in sources()}
    found = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        inner = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, functions)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                line = text.splitlines()[node.lineno - 1].strip()
                place = (path.relative_to(ROOT).as_posix(), node.lineno, line, module_of(path))
                found += [
                    Import(*place, target, id(node) in inner)
                    for target in targets_of(node, path, modules)
                ]
    return found


def part_of(module):
    """Return the part of iqa_core that a module belongs to; None for others."""
    name, *rest = module.split(".")
    if name != "iqa_core":
        return None
    return rest[0] if rest else "__init__"


@cache
def reachable(part):
    """Return the parts that a part may import."""
    found, pending = set(), list(MAY_IMPORT[part])
    while pending:
        other = pending.pop()
        if other not in found:
            found.add(other)
            pending += MAY_IMPORT[other]
    return found


def breaks_layers(each):
    part, target = part_of(each.importer), part_of(each.target)
    if part is None or target is None or part == target:
        return False
    return target not in reachable(part) and each.target not in ALSO.get(part, ())


def breaks_only_in(each):
    folders = ONLY_IN.get(each.target.partition(".")[0])
    return folders is not None and not each.file.startswith(folders)


def breaks_torch(each):
    if each.target.partition(".")[0] not in ("torch", "torchvision"):
        return False
    part = part_of(each.importer)
    return part in WITHOUT_TORCH or (part == "images" and not each.in_function)


def breaks_commands(each):
    """A command is imported by the command line, by its name, and by nothing else."""
    commands = {f"jobs.{command}" for command in COMMANDS}
    return each.target in commands


RULES = [breaks_layers, breaks_only_in, breaks_torch, breaks_commands]


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_imports_follow_the_rules(rule):
    offending = [str(each) for each in imports() if rule(each) and each.key not in KNOWN]
    assert offending == [], "\n" + "\n".join(offending)


@pytest.mark.parametrize(
    ("rule", "importer", "target", "in_function"),
    [
        (breaks_layers, "iqa_core.errors", "iqa_core.columns", False),
        (breaks_layers, "iqa_core.tables.rows", "iqa_core.fetch.fetcher", True),
        (breaks_layers, "iqa_core.storage.folder", "iqa_core.fetch.fetcher", True),
        (breaks_layers, "iqa_core.training.loop", "iqa_core.evaluation.evaluate", False),
        (breaks_layers, "iqa_core.clip.load", "iqa_core.scoring.scorer", False),
        (breaks_only_in, "iqa_core.tables.output", "ray.data", True),
        (breaks_only_in, "iqa_core.tables.output", "jobs.progress", False),
        (breaks_only_in, "iqa_core.storage.folder", "aiohttp", True),
        (breaks_only_in, "iqa_core.clip.sizes", "open_clip.model", False),
        (breaks_torch, "iqa_core.tables.rows", "torch", True),
        (breaks_torch, "iqa_core.images.resize", "torchvision", False),
        (breaks_commands, "jobs.rescore", "jobs.score", True),
    ],
)
def test_the_rules_find_what_breaks_them(rule, importer, target, in_function):
    file = importer.replace(".", "/") + ".py"
    assert rule(Import(file, 1, "", importer, target, in_function))


def test_the_rules_allow_what_follows_them():
    allowed = [
        ("iqa_core.training.loop", "iqa_core.evaluation.correlations", False),
        ("iqa_core.training.loop", "iqa_core.clip.encoder", False),  # by way of prompts
        ("iqa_core.storage.folder", "iqa_core.fetch.http", True),
        ("iqa_core.fetch.http", "aiohttp", False),
        ("iqa_core.images.resize", "torch", True),
        ("jobs.scoring.run", "ray.data", False),
        ("jobs.cli", "jobs.options", False),
    ]
    for importer, target, in_function in allowed:
        each = Import(importer.replace(".", "/") + ".py", 1, "", importer, target, in_function)
        assert [rule.__name__ for rule in RULES if rule(each)] == []


def test_every_part_has_its_rule():
    parts = {part_of(module_of(path)) for path in sources()} - {None}
    assert parts - set(MAY_IMPORT) == set()


def graph(known=()):
    modules = {module_of(path) for path in sources()}
    edges = {module: set() for module in modules}
    for each in imports():
        # A package's __init__ holds a docstring; the library's own names its public classes.
        if each.target in modules and each.target != each.importer and each.key not in known:
            edges[each.importer].add(each.target)
    return edges


def test_there_is_no_circle():
    """Also none of imports in functions or for types only."""
    try:
        graphlib.TopologicalSorter(graph(KNOWN)).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
        steps = [
            str(each)
            for after, before in itertools.pairwise(circle)
            for each in imports()
            if (each.importer, each.target) == (before, after)
        ]
        pytest.fail("a circle of imports:\n" + "\n".join(steps))


def test_packages_hold_a_docstring_only():
    wrong = []
    for path in sources():
        if path.name == "__init__.py" and len(path.relative_to(ROOT).parts) > 2:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            if len(body) != 1 or not isinstance(body[0], ast.Expr):
                wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_is_too_long():
    long = {
        path.relative_to(ROOT).as_posix(): lines_of(path)
        for path in sources()
        if lines_of(path) > MOST_LINES
    }
    assert {name: count for name, count in long.items() if name not in KNOWN_LONG} == {}
    assert set(KNOWN_LONG) - set(long) == set(), "take these out of KNOWN_LONG"


def test_known_exceptions_still_offend():
    def is_in_circle(each):
        edges, pending, seen = graph(), [each.target], set()
        while pending:
            module = pending.pop()
            if module not in seen:
                seen.add(module)
                pending += edges.get(module, ())
        return each.importer in seen

    offending = {
        each.key
        for each in imports()
        if each.key in KNOWN and (any(rule(each) for rule in RULES) or is_in_circle(each))
    }
    assert set(KNOWN) - offending == set(), "take these out of KNOWN"


def loaded_by(statement, *names):
    """Return which of the packages a fresh interpreter has after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(names) & set(json.loads(run.stdout))


def modules_in(*parts):
    known = {file for file, _ in KNOWN}
    return [
        module_of(path)
        for path in sources()
        if part_of(module_of(path)) in parts and path.relative_to(ROOT).as_posix() not in known
    ]


@pytest.mark.slow
def test_parts_without_torch_bring_no_deep_learning():
    """Of themselves, and of what they import."""
    modules = modules_in(*WITHOUT_TORCH, "images", "__init__")
    assert {"iqa_core", "iqa_core.errors", "iqa_core.images.decode"} <= set(modules)
    light = ", ".join([*modules, "iqa_core.prompts.pairs"])
    assert loaded_by(f"import {light}", "torch", "torchvision", "open_clip", "ray") == set()


@pytest.mark.slow
def test_the_whole_library_brings_no_ray():
    modules = [module_of(path) for path in sources() if part_of(module_of(path))]
    assert "iqa_core.scoring.scorer" in modules
    assert loaded_by(f"import {', '.join(modules)}", "ray", "torch") == {"torch"}


def test_a_name_that_is_not_there():
    import iqa_core

    with pytest.raises(AttributeError, match="module 'iqa_core' has no attribute 'Scorrer'"):
        iqa_core.Scorrer  # noqa: B018
    assert set(iqa_core.__all__) == {"Scorer", "Scores", "__version__"}
