"""Show a run as one self-contained HTML page: distributions, images to sort and filter, failures.

The page needs no server and loads nothing from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.pages.run.page import DEFAULT_SAMPLE, write_report
from iqa_core.storage.output_file import check_output_file

from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa report``."""

    scores: str = option(
        help="output folder of `iqa score` or `iqa rescore`", metavar="O", path=True
    )
    output: str = option(
        help="the page to write, an .html file, local or remote", metavar="FILE", path=True
    )
    manifest: str | None = option(
        None,
        help="the manifest's current path, if it was moved after the run",
        metavar="M",
        path=True,
    )
    compare: str | None = option(
        None,
        help="another output, such as an earlier run's: shows the drift and the images that the two runs "
        "disagree about",
        metavar="O",
        path=True,
    )
    thumbnails: int = option(
        60, help="images in the contact sheet; 0 opens no image", metavar="N", minimum=0
    )
    rows: int = option(
        500, help="rows in the table that can be sorted and filtered", metavar="N", minimum=0
    )
    sample: int = option(
        DEFAULT_SAMPLE,
        help="maximum number of rows for the distributions; a larger run is sampled at random",
        metavar="N",
        minimum=1,
    )
    title: str | None = option(None, help="heading of the page", metavar="TEXT")
    allow_scheme: tuple[str, ...] = option(
        (), help="as for the run: further URI schemes allowed for images", metavar="S"
    )
    allow_prefix: tuple[str, ...] = option(
        (),
        help="as for the run: read only images whose URI begins with this, or that lie beside the "
        "manifest",
        metavar="URI",
        path=True,
    )


def run(config: Config) -> int:
    """Write the page and print a summary of it."""
    inputs = (config.scores, config.manifest, config.compare)
    check_output_file("output", config.output, ".html", inputs)
    facts = write_report(
        config.scores,
        config.output,
        manifest=config.manifest,
        compare=config.compare,
        thumbnails=config.thumbnails,
        rows=config.rows,
        sample=config.sample,
        title=config.title,
        schemes=(*DEFAULT_SCHEMES, *config.allow_scheme),
        prefixes=config.allow_prefix,
    )
    print(
        f"{facts.output}: {facts.rows:,} rows, {facts.scored:,} scored, {facts.failed:,} not; "
        f"{facts.shown - facts.missing:,} images shown, {facts.size / 1e6:.1f} MB"
    )
    if facts.missing and facts.reason:
        moved = (
            "; if the manifest has moved, give --manifest" if facts.missing == facts.shown else ""
        )
        print(f"{facts.missing:,} images without a preview: {facts.reason}{moved}")
    return 0
