"""Tests of jobs/options.py and jobs/config.py: command lines that accept what a command obeys."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from iqa_core.errors import InputError
from jobs.cli import COMMANDS
from jobs.options import add_options, option, read_options

JOBS = Path(__file__).parents[2] / "jobs"


@dataclass(frozen=True, kw_only=True)
class Settings:
    images: tuple[str, ...] = option(help="images", positional=True)
    rate: float = option(0.5, help="a share of 5 %", metavar="X", minimum=0, maximum=1)
    number: int | None = option(None, help="a number", above=0)
    fast: bool = option(False, help="be fast")
    first: str = option("a", help="one way", exclusive="way")
    second: str | None = option(None, help="another way", exclusive="way")


def parse(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Settings)
    return read_options(Settings, parser.parse_args(words))


def test_options_become_a_configuration():
    assert parse("x") == Settings(images=("x",))
    assert parse("x", "y", "--rate", "1", "--fast", "--number", "3") == Settings(
        images=("x", "y"), rate=1.0, fast=True, number=3
    )


def test_limits_are_spelled_for_notebooks_and_for_the_command_line():
    with pytest.raises(InputError) as caught:
        parse("x", "--rate", "1.5")
    assert str(caught.value) == "rate (1.5) must be at most 1: leave rate out for 0.5"
    line = "--rate 1.5 must be at most 1: leave --rate out for 0.5"
    assert caught.value.on_command_line() == line
    with pytest.raises(
        InputError, match=r"^number \(0\) must be above 0: leave number out for the default"
    ):
        parse("x", "--number", "0")


def test_only_one_option_of_a_group_is_accepted():
    assert parse("x", "--second", "b") == Settings(images=("x",), second="b")
    with pytest.raises(argparse.ArgumentError, match="not allowed with argument --first"):
        parse("x", "--first", "a", "--second", "b")  # also where the first has its default


@dataclass(frozen=True, kw_only=True)
class Places:
    output: str = option(help="a file", path=True)
    scores: tuple[str, ...] = option((), help="folders", path=True)
    page: str | None = option(None, help="another file", path=True)
    where: tuple[str, ...] = option((), help="conditions")


def places(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Places)
    return read_options(Places, parser.parse_args(words))


def test_a_leading_tilde_is_the_home_folder_where_a_path_is_meant(monkeypatch):
    """As bash leaves it in ``--output=~/x``."""
    monkeypatch.setenv("HOME", "/home/ann")
    found = places("--output=~/x", "--page=~", "--scores", "~/a", "b=~/b", "c", "--where", "~/x")
    assert found == Places(
        output="/home/ann/x",
        page="/home/ann",
        scores=("/home/ann/a", "b=/home/ann/b", "c"),
        where=("~/x",),
    )
    for text in ("s3://box/~/x", "file:///~/x", "./~/x", "x~", "~x/y", "a b=~/x"):
        assert places("--output", text) == Places(output=text)


#: What the usage calls the values of options that name files or folders.
PATHS = {"O", "M", "F", "L", "R", "X", "URI", "FILE", "IMAGES", "FILE.html", "C.json", "M.parquet"}
PATHS |= {"P.safetensors", "NAME|FILE", "N|MANIFEST", "F2|best"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_that_names_files_is_one_of_a_path(command):
    config = importlib.import_module(f"jobs.{command}").Config
    texts = {"str", "str | None", "tuple[str, ...]"}
    fields = [field for field in dataclasses.fields(config) if field.type in texts]
    marked = {field.name for field in fields if field.metadata["path"]}
    assert marked == {field.name for field in fields if field.metadata["metavar"] in PATHS}


def jobs_imports(path):
    """Yield the files of jobs/ that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            names = [
                folder.with_suffix(".py"),
                *(folder / f"{alias.name}.py" for alias in node.names),
            ]
            yield from (name for name in names if name.is_file())


def read_from_configurations(command):
    """Return the options that the code of a command reads, in its module and what it imports of jobs/."""
    seen, pending = set(), [JOBS / f"{command}.py"]
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending += jobs_imports(path)
    return {
        node.attr
        for path in seen
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("config", "options", "arguments", "settings")
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_each_of_its_options(command):
    module = importlib.import_module(f"jobs.{command}")
    names = {field.name for field in dataclasses.fields(module.Config)}
    assert names
    assert names - read_from_configurations(command) == set()


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_are_finite(value):
    with pytest.raises(InputError, match="must be a finite number"):
        parse("x", "--rate", value)
