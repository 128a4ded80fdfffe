"""Encode the images of a manifest once, for `iqa train` and `iqa rescore`.

Writes part-*.parquet with float16 image features. The same command again resumes.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.errors import InputError

from .config import ImageOptions
from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(ImageOptions):
    """Options of ``iqa embed``."""

    views: int = option(
        0,
        help="also encode N degraded copies of each image (blur, noise, JPEG, ...), whose order of quality "
        "is known: `iqa train` learns from it",
        metavar="N",
        minimum=0,
        maximum=32,
    )


def run(config: Config) -> int:
    """Encode; return the exit status."""
    if config.views and config.resolution == "native":
        raise InputError(
            f"--views {config.views} needs images of one size: leave out --resolution native"
        )
    if config.views and config.dedupe:
        raise InputError(
            f"--dedupe can't be used with --views {config.views}, which degrade equal images differently: "
            "leave out one of the two"
        )
    from .scoring.run import run_images

    return run_images(config, kind="embed", prompts=None, embeddings=True, views=config.views)
