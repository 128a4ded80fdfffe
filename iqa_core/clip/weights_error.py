"""The error of an unusable file of weights, and its message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OtherArchitectureError", "WeightsError", "cannot_fetch", "does_not_load"]

_SHARD = re.compile(r"-\d+-of-\d+\.")


class WeightsError(Exception):
    """A file of weights can't be used.

    Args:
        problem: What is wrong with it, or what it is instead.
        advice: What helps.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice


class OtherArchitectureError(WeightsError):
    """The tensors are those of another architecture than the named one."""


def does_not_load(path: Path, name: str, error: Exception) -> InputError:
    """Return the error that a user sees where a file does not load as an architecture."""
    if isinstance(error, WeightsError):
        problem, advice = error.problem, error.advice
        if isinstance(error, OtherArchitectureError) and _SHARD.search(path.name):
            problem = f"it is one shard of several: {problem}"
            advice = "give the index, *.index.json, with all shards beside it"
    else:
        problem = f"{type(error).__name__}: {error_line(error, 200)}"
        advice = (
            "name the architecture that the file was saved from, or openai@FILE for weights of "
            "OpenAI's"
        )
    return InputError(f"weights of {path} do not load as {name} ({problem}): {advice}")


def cannot_fetch(model: str, error: Exception) -> InputError:
    """Return the error of weights that could not be downloaded."""
    reason = error_line(error).rpartition("Last error: ")[2]  # what open_clip wraps it in
    return InputError(
        f"weights of --model {model} could not be fetched ({reason[:300]}): check the network and "
        "the name, give a local file as NAME@FILE, or use --model tiny, which is embedded"
    )
