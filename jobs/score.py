"""Score the images of a manifest with CLIP and antonym prompts.

Writes part-*.parquet with one row for each row of the manifest. The same command again resumes
where it was stopped, and does nothing once all is done. With --features instead of --manifest the
features of `iqa embed` are scored, and no image is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS, load_pairs

from .config import ImageConfig
from .options import option

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Towers
    from iqa_core.scoring.features import PromptFeatures

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Options of ``iqa score``."""

    manifest: str | None = option(
        None,
        help="Parquet file, glob or folder with a uri or an image column, local or remote",
        metavar="M",
    )
    features: str | None = option(
        None, help="output of `iqa embed`, to score features instead of images", metavar="F"
    )
    pairs: str = option(
        DEFAULT_PAIRS,
        help=f"base prompt pairs: {', '.join(NAMED_PAIRS)}, or a TOML file with [[pair]] tables",
        metavar="NAME|FILE",
    )
    prompts: str | None = option(
        None, help="prompt file of `iqa train`, instead of --pairs", metavar="P.safetensors"
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
    if config.prompts is None:
        load_pairs(config.pairs)  # before the imports: a wrong name should not take seconds
    if config.manifest is not None and config.features is None:
        from .scoring.run import run_images

        return run_images(
            config,
            config.manifest,
            kind="score",
            prompts_of=lambda towers: _prompts(config, towers),
            embeddings=config.embeddings,
        )
    if config.features is not None and config.manifest is None:
        from .rescore import rescore

        return rescore(config, config.features, lambda towers: _prompts(config, towers))
    given = "neither" if config.manifest is None else "both"
    raise InputError(f"--manifest and --features: {given} given, but exactly one is needed")


def _prompts(config: Config, towers: Towers) -> PromptFeatures:
    """Return what to score by: learned prompts, or base prompts through the text tower."""
    from dataclasses import replace

    from iqa_core.prompts.file import load_prompts
    from iqa_core.scoring.features import encode_prompts

    if config.prompts is None:
        return encode_prompts(towers, load_pairs(config.pairs), config.logit_scale)
    learned = load_prompts(config.prompts, towers).features
    return replace(learned, logit_scale=config.logit_scale) if config.logit_scale else learned
