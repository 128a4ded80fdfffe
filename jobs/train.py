"""Learn prompts from the features of `iqa embed`: without labels, or from a column such as MOS.

Writes a prompt file for `iqa score --prompts`, and next to it a page with learning curves. The same
command again resumes an interrupted training.
"""

from __future__ import annotations

from iqa_core.prompts.pairs import load_pairs

from .training.config import Config

__all__ = ["Config", "run"]


def run(config: Config) -> int:
    """Train; return the exit status."""
    load_pairs(config.pairs)  # before the imports: a wrong name should not take seconds
    from .training.run import run_training

    return run_training(config)
