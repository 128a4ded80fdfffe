"""Score features that exist, of `iqa embed` or of another program, without images and without Ray.

Writes part-*.parquet with one row for each row of the features. The same command again resumes,
and scores the rows whose features `iqa embed --retry-errors` has repaired meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import RescoreOptions
from .extra_columns import extra_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.tables.schema import ExtraColumn
    from iqa_core.tables.sink import OpenSink

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config(RescoreOptions):
    """Options of ``iqa rescore``."""


def run(
    config: Config, *, extra: Sequence[ExtraColumn] = (), open_sink: OpenSink | None = None
) -> int:
    """Score; return the exit status.

    Args:
        config: The options.
        extra: Further columns of the output, for programs that call this.
        open_sink: Opens another place for the rows than part files, likewise.
    """
    from iqa_core.tables.output import Output

    from .scoring.rescore import rescore

    columns = [*extra_columns(config), *extra]
    return rescore(config, extra=columns, open_sink=open_sink or Output)
