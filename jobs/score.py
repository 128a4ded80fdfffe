"""Score the images of a manifest with CLIP and antonym prompts.

Writes part-*.parquet with one row for each row of the manifest. The same command again resumes
where it was stopped, and does nothing if all rows are done. `iqa score --features F` is an alias of
`iqa rescore --features F`, which scores the features of `iqa embed` and reads no image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import ScoreOptions
from .extra_columns import extra_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.tables.schema import ExtraColumn
    from iqa_core.tables.sink import OpenSink

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(ScoreOptions):
    """Options of ``iqa score``."""


def run(
    config: Config, *, extra: Sequence[ExtraColumn] = (), open_sink: OpenSink | None = None
) -> int:
    """Score; return the exit status.

    Args:
        config: The options.
        extra: Further columns of the output, for programs that call this.
        open_sink: Opens another place for the rows than part files, likewise.
    """
    from iqa_core.images.crops import check_crops
    from iqa_core.tables.output import Output

    from .scoring.run import run_images

    check_crops(config.crops, config.resolution)

    return run_images(
        config,
        kind="score",
        prompts=config,
        embeddings=config.embeddings,
        crops=config.crops,
        extra=[*extra_columns(config), *extra],
        open_sink=open_sink or Output,
    )
