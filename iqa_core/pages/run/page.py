"""A finished run as one self-contained HTML page: distributions, images, a table to sort and filter.

URIs, errors and column values are untrusted: they reach the page as text only (through the
templates of :mod:`iqa_core.pages.html`, and as JSON of which ``browse.js`` makes text).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_core.errors import InputError, Status
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.pages.html import asset, page
from iqa_core.pages.run import sections
from iqa_core.pages.run.browse import browse
from iqa_core.pages.run.cards import disputes, extremes, sheet
from iqa_core.pages.run.columns import columns
from iqa_core.pages.run.comparison import comparison
from iqa_core.pages.run.data import DEFAULT_SAMPLE, load_other, load_run
from iqa_core.pages.run.layout import choose_rows
from iqa_core.pages.run.threshold import threshold_tool
from iqa_core.pages.run.thumbnails import MAX_FILE_BYTES, folder_of, load_cards
from iqa_core.storage.folder import Folder, has_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.pages.run.data import Other, Run
    from iqa_core.pages.run.layout import Layout
    from iqa_core.pages.run.thumbnails import Card

__all__ = ["DEFAULT_SAMPLE", "ReportFacts", "write_report"]


@dataclass(frozen=True)
class ReportFacts:
    """Counts of a written report.

    Attributes:
        output: Path or URI of the HTML file.
        rows: Rows of the run.
        scored: Rows with status ``ok``.
        failed: All other rows.
        listed: Rows in the table.
        shown: Distinct images of scored rows in the sections and the table.
        missing: Those of them that have a placeholder, because no thumbnail could be made.
        reason: The reason of the first of them.
        size: Size of the HTML file in bytes.
    """

    output: str
    rows: int
    scored: int
    failed: int
    listed: int
    shown: int
    missing: int
    reason: str | None
    size: int


def write_report(
    scores: str,
    output: str,
    *,
    manifest: str | None = None,
    compare: str | None = None,
    thumbnails: int = 60,
    rows: int = 500,
    sample: int = DEFAULT_SAMPLE,
    title: str | None = None,
    schemes: tuple[str, ...] = DEFAULT_SCHEMES,
    prefixes: tuple[str, ...] = (),
) -> ReportFacts:
    """Write the report of a run as one HTML file, under its final name only once complete.

    Args:
        scores: Directory or fsspec URI with the run's ``part-*.parquet`` and ``_run/``. A missing
            or damaged file in ``_run/`` only leaves its facts unknown.
        output: Path or fsspec URI of the HTML file. A local folder must exist; an existing file is
            replaced.
        manifest: Manifest file or directory from which relative URIs and inline images are
            resolved; default: the one in the run's plan.
        compare: Another run, such as an earlier one, to show the drift from and the images that the
            two disagree about. Rows are joined by their place where both runs are of one manifest,
            else by URI.
        thumbnails: Maximum number of images in the contact sheet; the best and the worst images,
            and the most disputed ones, are up to a fifth as many, each. 0 opens no image.
        rows: Maximum number of rows in the table that can be sorted and filtered.
        sample: A run of more rows is described by this many of them, drawn at random.
        title: Heading of the page.
        schemes: See :class:`iqa_core.fetch.fetcher.Fetcher`.
        prefixes: Likewise.

    Returns:
        Counts of rows and images.

    Raises:
        InputError: If ``scores`` or ``compare`` holds no readable part file, ``output`` can't be
            written, or a number is too small.
    """
    for name, value, least in (
        ("thumbnails", thumbnails, 0),
        ("rows", rows, 0),
        ("sample", sample, 1),
    ):
        if value < least:
            raise InputError(
                argument=name, value=value, limit=f"at least {least}", fix=f"raise {{{name}}}"
            )
    folder, file = _check_output(output)
    run = load_run(scores, sample)
    other = None if compare is None else load_other(run, compare)
    layout = choose_rows(run, other, thumbnails, rows)
    cards = _load_cards(run, layout, manifest or run.manifest, schemes, prefixes)
    document = _page(scores, run, other, layout, cards, title or "Image quality report")
    content = document.encode("utf-8", "replace")
    try:
        folder.write(file, content)
    except OSError as error:
        raise InputError(f"--output {output} can't be written: {error}") from error
    scored = [card for card in cards.values() if card.row["status"] == Status.OK.value]
    scored = scored if layout.rows else []  # no image was asked for
    reasons = [card.reason for card in scored if card.thumbnail is None]
    return ReportFacts(
        output=output,
        rows=run.total,
        scored=run.scored,
        failed=run.total - run.scored,
        listed=len(layout.table),
        shown=len(scored),
        missing=len(reasons),
        reason=next((reason for reason in reasons if reason), None),
        size=len(content),
    )


def _check_output(output: str) -> tuple[Folder, str]:
    """Return the folder and the name of the file to write."""
    parent, _, name = output.rpartition("/")
    if not has_scheme(output):
        target = Path(output)
        if not target.parent.is_dir():
            raise InputError(
                f"--output {output}: the folder {target.parent} does not exist: create it first, "
                "or give a path in a folder that exists"
            )
        if target.is_dir():
            raise _no_file(output)
        parent, name = str(target.parent), target.name
    if not name:
        raise _no_file(output)
    return Folder.given(parent, "output"), name


def _no_file(output: str) -> InputError:
    fix = "it is a folder; give the name of a file, such as report.html"
    return InputError(argument="output", value=output, limit="a file", fix=fix)


def _load_cards(
    run: Run,
    layout: Layout,
    manifest: str | None,
    schemes: tuple[str, ...],
    prefixes: tuple[str, ...],
) -> dict[int, Card]:
    folder = folder_of(manifest)
    fetcher = Fetcher(
        folder or ".",
        timeout=10.0,
        retries=1,
        max_bytes=MAX_FILE_BYTES,
        schemes=schemes,
        prefixes=prefixes,
    )
    return load_cards(run, layout, fetcher, folder)


def _page(
    scores: str,
    run: Run,
    other: Other | None,
    layout: Layout,
    cards: Mapping[int, Card],
    title: str,
) -> str:
    tool = threshold_tool(run, scores)
    scripts = (["browse"] if layout.table else []) + (["threshold"] if tool else [])
    parts = [
        ("scores", "Scores", sections.histograms(run, tool)),
        ("drift", "Against another run", comparison(run, other, layout, cards)),
        ("extremes", "Best and worst", extremes(run, layout, cards)),
        ("disputed", "Disputed between the pairs", disputes(run, "pairs", layout, cards)),
        ("sheet", "From worst to best", sheet(run, layout, cards)),
        ("browse", "Sort and filter", browse(run, other, layout, cards)),
        ("columns", "Score and the manifest's columns", columns(run)),
        ("failures", "Failures", sections.failures(run)),
        ("run", "The run", sections.run_facts(run)),
    ]
    return page(
        "report.html",
        title=title,
        script="\n".join(asset(f"templates/{name}.js") for name in scripts),
        images=True,
        notices=sections.notices(run),
        tiles=sections.tiles(run),
        sections=[part for part in parts if part[2]],
    )
