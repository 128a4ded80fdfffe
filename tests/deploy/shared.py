"""What the tests of deploy/ share: where it is, and whether a command line is one of this project."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from pathlib import Path

from jobs.cli import COMMANDS
from jobs.options import add_options

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def parses(words):
    """Return whether `iqa WORDS...` is a command line of this project; unknown options raise."""
    command, *rest = words
    assert command in COMMANDS
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, importlib.import_module(f"jobs.{command}").Config)
    _, unknown = parser.parse_known_args(rest)
    assert unknown == []
    return True


def program(name):
    """Return the path of a program that comes with a Python package of this environment."""
    return shutil.which(name, path=str(Path(sys.executable).parent))
