"""The command ``iqa``: finds the subcommand's module, reads its options, prints errors as one line."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import signal
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, NoReturn

from iqa_core import __version__
from iqa_core.errors import InputError

from .options import add_options, read_options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

#: Each is a module of this package with a ``Config`` dataclass and a function ``run(config)``
#: that returns the exit status.
COMMANDS = {
    "manifest": "list images in a Parquet manifest",
    "plan": "forecast a run from a sample: bottleneck, rate, time, cost",
    "score": "score the images of a manifest; the same command again resumes",
    "rescore": "score the features of `iqa embed`: no image is read",
    "embed": "encode the images of a manifest once, to train on or to rescore",
    "train": "learn better prompts from the features of `iqa embed`",
    "evaluate": "compare scores with human opinion: correlations, intervals, differences",
    "calibrate": "map scores to opinion scores, from a few hundred labels",
    "duplicates": "find files with equal bytes, and images that show almost the same",
    "select": "select rows of finished scores by conditions and quotas: a manifest again",
    "status": "show how a run goes, from anywhere that can read its output",
    "report": "show a run's scores as one HTML page",
    "export": "write a finished output as Parquet, CSV, a data set or a table of other tools",
    "verify": "prove that an output holds every row of its manifest once",
}

_BOTH = "--manifest and --features: both given, but exactly one is needed"
_EPILOG = """exit status:
  0 done   1 failed, one line says why   2 wrong usage
  3 done, but more rows failed than --max-error-rate allows, or stopped in an outage
  130, 143 interrupted or stopped: the same command resumes"""

_MEANING = {
    1: "failed",
    3: "complete, but too many rows could not be scored, or stopped in an outage",
    130: "interrupted; the same command resumes",
    143: "stopped; the same command resumes",
}
#: Set by Ray for the driver of a submitted job.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class _Parser(argparse.ArgumentParser):
    """Prints errors as one line, without the usage that argparse puts before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_redacted(message)} (see {self.prog} --help)\n")


def _parser(command: str | None) -> _Parser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="iqa",
        description="Blind image quality scores for millions of images: CLIP and antonym prompts, on Ray.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"iqa {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, epilog=_EPILOG, formatter_class=formatter)
        if name == command:  # the others are not imported, as they would import more than it needs
            module = importlib.import_module(f".{name}", __package__)
            sub.description = module.__doc__
            add_options(sub, module.Config)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``iqa``.

    Args:
        argv: The arguments; None takes those of the process.

    Returns:
        The exit status: 0 done, 1 failed, 3 done with too many failed rows. Wrong usage exits with
        2 at once.
    """
    _collect_less()
    status = _main(argv)
    if status and _JOB in os.environ:
        # `ray job submit` itself exits with 1 whatever this was.
        print(f"exit status {status}: {_MEANING.get(status, 'stopped')}", file=sys.stderr)
    return status


def _main(argv: Sequence[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if reason := _without_temporary_folder():
        print(f"iqa: {reason}", file=sys.stderr)
        return 1
    command = next((argument for argument in arguments if argument in COMMANDS), None)
    if command == "score" and _has(arguments, "--features"):
        if _has(arguments, "--manifest"):
            print(f"iqa score: {_BOTH}", file=sys.stderr)
            return 1
        print("iqa score --features is an alias of iqa rescore --features", file=sys.stderr)
        arguments[arguments.index("score")] = command = "rescore"
    parsed = _parser(command).parse_args(arguments)
    module = importlib.import_module(f".{parsed.command}", __package__)
    try:
        status: int = module.run(read_options(module.Config, parsed))
    except InputError as error:
        print(f"iqa {parsed.command}: {_redacted(error.on_command_line())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"iqa {parsed.command}: interrupted", file=sys.stderr)
        return 130
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # as Ray's handler exits, before and after ours
            raise
        print(f"iqa {parsed.command}: stopped; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:  # `iqa ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:  # a bug: the traceback, without secrets
        print(_redacted(traceback.format_exc()), end="", file=sys.stderr)
        return 1
    return status


def _collect_less() -> None:
    """Look for cycles of garbage more rarely, and not at all when the process ends.

    Importing torch, open_clip and Ray makes a million objects that stay: looking through them again and
    again takes an eighth of the imports, and once more a second at the end.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def _has(arguments: Sequence[str], flag: str) -> bool:
    return any(argument.partition("=")[0] == flag for argument in arguments)


def _without_temporary_folder() -> str | None:
    """Use /dev/shm if no temporary folder is writable, as torch needs one; return an error or None."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:  # a read-only root, and no TMPDIR
        if not os.access("/dev/shm", os.W_OK):  # noqa: S108 - of all users, and so is /tmp
            return f"{error.strerror}: set TMPDIR to a folder that this user may write to"
        os.environ["TMPDIR"] = "/dev/shm"  # noqa: S108
    return None


def _redacted(text: str) -> str:
    from iqa_core.redaction import redact

    return redact(text)
