"""Export a finished output to a format of other tools.

An unfinished output is refused, and so is an existing target, unless the format can append (--append). A
killed export leaves nothing that looks whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.exporting.formats import check_format, export
from iqa_core.exporting.source import FinishedOutput
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.tables.output_checks import check_no_part, check_not_in_manifest
from iqa_core.tables.plan import read_plan

from .options import option
from .progress import Progress

__all__ = ["Config", "run"]

#: Formats that write .parquet files, which a manifest's folder must not get.
_PARQUET = ("parquet", "hf", "delta")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa export``."""

    scores: str = option(
        help="output folder of `iqa score`, `iqa rescore` or `iqa embed`",
        metavar="O",
        path=True,
    )
    to: Literal["parquet", "csv", "hf", "webdataset", "lance", "iceberg", "delta"] = option(
        help="format; all but parquet and csv need an extra, such as pip install 'distributed-iqa[hf]'"
    )
    output: str = option(
        help="new file, folder or table: a path or a URI; of iceberg CATALOG.NAMESPACE.TABLE",
        metavar="X",
        path=True,
    )
    append: bool = option(
        False, help="add the rows to an existing table in one commit (lance, iceberg, delta)"
    )
    allow_scheme: tuple[str, ...] = option(
        (), help="further URI schemes that webdataset may read, as of `iqa score`", metavar="S"
    )
    allow_prefix: tuple[str, ...] = option(
        (),
        help="read only images below one of these, as of `iqa score` (webdataset)",
        metavar="URI",
        path=True,
    )


def run(config: Config) -> int:
    """Export; return the exit status."""
    check_format(config.to, config.append)  # before a large output is read
    if config.to != "iceberg":  # whose tables have no place here
        check_no_part(config.output, [config.scores])
    if config.to in _PARQUET:
        check_not_in_manifest(config.output, read_plan(Folder.given(config.scores, "scores")))
    source = FinishedOutput(config.scores)
    fetcher = Fetcher(
        source.images or ".",
        schemes=(*DEFAULT_SCHEMES, *config.allow_scheme),
        prefixes=config.allow_prefix,
    )
    progress = Progress(source.rows)
    rows = 0

    def on_rows(count: int) -> None:
        nonlocal rows
        rows += count
        progress.add({"ok": rows})
        progress.tick()

    notes = export(
        source,
        config.to,
        config.output,
        append=config.append,
        fetcher=fetcher,
        on_rows=on_rows,
    )
    progress.close()
    print(f"{source.rows:,} rows in {redact(config.output)} ({config.to})")
    for note in notes:
        print(note)
    return 0
