"""`python -m tools.options_page`: docs/options.md from the configuration dataclasses of the commands.

`--check` writes nothing and exits with 1 if the page on disk is another one; a test does the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Any

from jobs.cli import COMMANDS
from jobs.options import add_options

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
LIMITS = (("minimum", "at least"), ("above", "above"), ("maximum", "at most"))
HEAD = """# Options of every command

Made by `python -m tools.options_page` from the configuration dataclasses in `jobs/`; `iqa COMMAND --help`
prints the same. Do not edit it by hand: a test compares it with the code.

An option with `...` takes several values. A run saves its options in `_run/config.json` of its output.

Exit status of every command: 0 done; 1 failed, and one line says why; 2 wrong usage; 3 done, but more rows
failed than `--max-error-rate` allows, or stopped in an outage; 130 or 143 interrupted or stopped.
"""


def render() -> str:
    """Return the page, Markdown."""
    sections = [HEAD]
    for command, summary in COMMANDS.items():
        config = importlib.import_module(f"jobs.{command}").Config
        sections.append(
            f"## iqa {command}\n\n{summary[0].upper()}{summary[1:]}.\n\n{table(config)}\n"
        )
    return "\n".join(sections)


def table(config: type) -> str:
    """Return the options of one configuration dataclass as a Markdown table, required options first."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser, config)
    fields = {field.name: field for field in dataclasses.fields(config)}
    actions = [action for action in parser._actions if action.dest in fields]
    actions.sort(key=lambda action: not is_required(action))
    lines = ["| option | what it does | default |", "|---|---|---|"]
    for action in actions:
        text, default = split_default(" ".join((action.help or "").replace("%%", "%").split()))
        text += describe_limits(fields[action.dest])
        default = "required" if is_required(action) else default
        lines.append("| " + " | ".join(map(cell, (f"`{usage(action)}`", text, default))) + " |")
    return "\n".join(lines)


def split_default(text: str) -> tuple[str, str]:
    """Return a help text without its `(default: ...)`, and that default, empty where it has none."""
    found = re.fullmatch(r"(.*?) \(default: (.*)\)", text)
    return (found[1], found[2]) if found else (text, "")


def is_required(action: argparse.Action) -> bool:
    """Return whether the command fails without this option; positional arguments are required."""
    return action.required or not action.option_strings


def usage(action: argparse.Action) -> str:
    """Return an option as it is typed, such as `--keep COLUMN ...`."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return " / ".join(action.option_strings)
    values = "|".join(map(str, action.choices)) if action.choices else ""
    if action.nargs == "+" and action.metavar:  # many choices: the metavar is shorter
        values = ""
    value = values or str(action.metavar or action.dest.upper())
    words = [*action.option_strings[:1], value, *(["..."] if action.nargs == "+" else [])]
    return " ".join(words)


def describe_limits(field: dataclasses.Field[Any]) -> str:
    """Return the limits of a number as they are added to its help text, empty without any."""
    limits = [(words, field.metadata.get(key)) for key, words in LIMITS]
    found = [f"{words} {limit}" for words, limit in limits if limit is not None]
    return f"; {' and '.join(found)}" if found else ""


def cell(text: str) -> str:
    """Return a text as it may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    page = render()
    if check:
        if PAGE.read_text(encoding="utf-8") == page:
            return 0
        print("docs/options.md is out of date: run python -m tools.options_page", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE}: {len(COMMANDS)} commands")
    return 0


if __name__ == "__main__":
    sys.exit(main())
