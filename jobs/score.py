"""Score the images of a manifest with CLIP and antonym prompts.

Writes part-*.parquet with one row for each row of the manifest. The same command again resumes
where it was stopped, and does nothing once all is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.prompts import DEFAULT_PAIRS, NAMED_PAIRS, load_pairs
from jobs.config import ImageConfig
from jobs.options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Options of ``iqa score``."""

    pairs: str = option(
        DEFAULT_PAIRS,
        help=f"base prompt pairs: {', '.join(NAMED_PAIRS)}, or a TOML file with [[pair]] tables",
        metavar="NAME|FILE",
    )
    logit_scale: float | None = option(
        None,
        help="factor on cosine differences (default: the model's own; 1 gives plain cosines)",
        metavar="G",
        above=0,
    )
    embeddings: bool = option(False, help="write the image features too")


def run(config: Config) -> int:
    """Score; return the exit status."""
    pairs = load_pairs(config.pairs)  # before the imports: a wrong name should not take seconds
    from iqa_core.scoring import encode_prompts
    from jobs.run import run_images

    return run_images(
        config,
        kind="score",
        prompts_of=lambda towers: encode_prompts(towers, pairs, config.logit_scale),
        embeddings=config.embeddings,
    )
