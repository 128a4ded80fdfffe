"""Show a run as one self-contained HTML page: histograms, contact sheet, failures, run facts."""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.report import write_report
from jobs.options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa report``."""

    scores: str = option(help="output folder of `iqa score`", metavar="O")
    output: str = option(help="the page to write, an .html file", metavar="FILE")
    manifest: str | None = option(
        None, help="where the manifest is now, if it has moved since the run", metavar="M"
    )
    compare: str | None = option(
        None,
        help="another output, such as an earlier one: shows the drift and the images that the two "
        "disagree about",
        metavar="O",
    )
    thumbnails: int = option(60, help="images in the contact sheet", metavar="N", minimum=0)
    title: str | None = option(None, help="heading of the page", metavar="TEXT")


def run(config: Config) -> int:
    """Write the page and say what is on it."""
    facts = write_report(
        config.scores,
        config.output,
        manifest=config.manifest,
        compare=config.compare,
        thumbnails=config.thumbnails,
        title=config.title,
    )
    print(
        f"{facts.output}: {facts.rows:,} rows, {facts.scored:,} scored, {facts.failed:,} not; "
        f"{facts.shown:,} images shown, {facts.size / 1e6:.1f} MB"
    )
    return 0
