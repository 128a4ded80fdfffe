"""Score the features of `iqa embed` with other prompts, without images and without Ray.

Writes part-*.parquet with one row for each row of the features. The same command again resumes.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.prompts.pairs import load_pairs

from .config import RescoreOptions

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(RescoreOptions):
    """Options of ``iqa rescore``."""


def run(config: Config) -> int:
    """Score; return the exit status."""
    if config.prompts is None:
        load_pairs(config.pairs)  # before the imports, which take seconds: the name may be wrong
    from .scoring.rescore import rescore

    return rescore(config)
