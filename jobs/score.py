"""Score the images of a manifest with CLIP and antonym prompts.

Writes part-*.parquet with one row for each row of the manifest. The same command again resumes
where it was stopped, and does nothing if all rows are done. `iqa score --features F` is an alias of
`iqa rescore --features F`, which scores the features of `iqa embed` and reads no image.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.prompts.pairs import load_pairs

from .config import ImageOptions, PromptOptions
from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(PromptOptions, ImageOptions):
    """Options of ``iqa score``."""

    embeddings: bool = option(False, help="also write the image features")


def run(config: Config) -> int:
    """Score; return the exit status."""
    if config.prompts is None:
        load_pairs(config.pairs)  # before the imports, which take seconds: the name may be wrong
    from .scoring.prompts import prompt_features
    from .scoring.run import run_images

    return run_images(
        config,
        kind="score",
        prompts_of=lambda towers: prompt_features(config, towers),
        embeddings=config.embeddings,
    )
