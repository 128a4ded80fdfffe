"""Command lines derived from frozen configuration dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import math
import operator
import os
import re
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from iqa_core.errors import InputError

__all__ = ["add_options", "option", "read_options"]

Config = TypeVar("Config")

#: What a shell leaves alone in ``--output=~/scores`` and in ``second=~/scores``.
_HOME = re.compile(r"((?:[A-Za-z_]\w*=)?)(~(?:/.*)?)", re.DOTALL)
_LIMITS = (
    ("minimum", operator.ge, "at least"),
    ("above", operator.gt, "above"),
    ("maximum", operator.le, "at most"),
)


def option(
    default: Any = dataclasses.MISSING,  # noqa: ANN401 - any option type
    *,
    help: str,
    metavar: str | None = None,
    positional: bool = False,
    path: bool = False,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    exclusive: str | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Describe one field of a configuration as an option of the command line.

    Args:
        default: Value where the option isn't given; without one it is required.
        help: What it does; its default is added.
        metavar: Placeholder of its value in the usage.
        positional: Whether it is given by position instead of by ``--name``.
        path: Whether it names files or folders, where a leading ``~`` is the home folder.
        minimum: Lowest allowed value.
        above: Limit below all allowed values.
        maximum: Highest allowed value.
        exclusive: Name of a group of options of which only one may be given.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum}
    metadata = {"help": help, "metavar": metavar, "positional": positional, **limits}
    metadata |= {"exclusive": exclusive, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Add the options of a configuration dataclass to a parser."""
    hints = get_type_hints(config)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if "help" not in field.metadata:
            continue
        kind, many = _unwrap(hints[field.name])
        arguments: dict[str, Any] = {"help": _help(field)}
        if field.metadata["metavar"]:
            arguments["metavar"] = field.metadata["metavar"]
        if many:
            arguments["nargs"] = "+"
        if kind is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is Literal:
            arguments["choices"] = get_args(kind)
        else:
            arguments["type"] = kind
        if field.metadata["positional"]:
            parser.add_argument(field.name, **arguments)
            continue
        required = field.default is dataclasses.MISSING
        # argparse sees only a value other than the default as given.
        default = None if required or field.metadata["exclusive"] else field.default
        flag = "--" + field.name.replace("_", "-")
        group = field.metadata["exclusive"]
        if group and group not in groups:
            groups[group] = parser.add_mutually_exclusive_group()
        target = groups[group] if group else parser
        target.add_argument(flag, required=required, default=default, **arguments)


def _unwrap(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401 - type hints have no common type
    """Return the type of one value, and whether there may be several."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def _help(field: dataclasses.Field[Any]) -> str:
    text = str(field.metadata["help"]).replace("%", "%%")
    hidden = (dataclasses.MISSING, None, False, True)  # by identity: 0 and 1 are shown
    shown = field.default not in ((), "") and not any(field.default is value for value in hidden)
    return f"{text} (default: {field.default})" if shown else text


def read_options(config: type[Config], arguments: argparse.Namespace) -> Config:
    """Make a configuration from parsed arguments.

    Raises:
        InputError: If a number is outside of its limits.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if "help" not in field.metadata:
            continue
        value = getattr(arguments, field.name)
        if value is None and field.metadata["exclusive"]:
            value = field.default
        value = tuple(value) if isinstance(value, list) else value
        _check_limits(field, value)
        values[field.name] = _at_home(value) if field.metadata["path"] else value
    return config(**values)


def _at_home(value: Any) -> Any:  # noqa: ANN401 - of any option that names files
    """Expand a leading ``~/`` of a path, or of each of several; ``~user/`` is left as it is."""
    if isinstance(value, tuple):
        return tuple(_at_home(each) for each in value)
    found = _HOME.fullmatch(value) if isinstance(value, str) else None
    return found[1] + os.path.expanduser(found[2]) if found else value


def _check_limits(field: dataclasses.Field[Any], value: Any) -> None:  # noqa: ANN401
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise InputError(
            argument=field.name, value=value, limit="a finite number", fix="give another one"
        )
    for key, holds, words in _LIMITS:
        limit = field.metadata[key]
        if limit is not None and not holds(value, limit):
            default = "the default" if field.default is None else str(field.default)
            fix = f"leave {{{field.name}}} out for {default}"
            raise InputError(argument=field.name, value=value, limit=f"{words} {limit}", fix=fix)
