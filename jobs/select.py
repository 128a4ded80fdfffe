"""Select rows of finished scores: a manifest again, which every command takes, and what went and why.

Steps, in this order: status, conditions, the best of each cluster, a quota. Expressions are SQL of DuckDB
over the columns of the output; columns of further outputs are NAME.column.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from iqa_core.columns import SCORE
from iqa_core.errors import InputError
from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.output_checks import check_no_part, check_not_in_manifest

from .options import option

if TYPE_CHECKING:
    from iqa_core.selecting.request import Request
    from iqa_core.selecting.selection import Selection
    from iqa_core.selecting.sources import ScoreSource

__all__ = ["Config", "run"]

_PAGE = ".html"
_IMAGES = 24


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa select``."""

    scores: tuple[str, ...] = option(
        help="output folders of `iqa score`; rows of the first are selected, and columns of the others, "
        "joined by manifest file and row, are known by the folder's name or as NAME=O",
        metavar="O",
        path=True,
    )
    output: str = option(
        help="the manifest to write, a .parquet file, local or remote",
        metavar="M.parquet",
        path=True,
    )
    where: tuple[str, ...] = option(
        (),
        help='SQL conditions that must all be true, such as "score > 0.6 and scores.noise > 0.5"',
        metavar="EXPR",
    )
    status: tuple[str, ...] = option(
        ("ok",), help="statuses of rows that can be selected; any takes all", metavar="STATUS"
    )
    top: str | None = option(
        None,
        help="keep the highest ranks: a share such as 20%, or a number",
        metavar="N",
        exclusive="quota",
    )
    bottom: str | None = option(
        None, help="keep the lowest ranks: a share or a number", metavar="N", exclusive="quota"
    )
    best: int | None = option(
        None, help="as --top with a number", metavar="N", minimum=1, exclusive="quota"
    )
    sample: str | None = option(
        None, help="keep a random sample: a number or a share", metavar="N", exclusive="quota"
    )
    for_labelling: int | None = option(
        None,
        help="keep the N rows whose labels would teach `iqa calibrate` most: over the whole range of "
        "scores, where the pairs disagree, and random ones",
        metavar="N",
        minimum=1,
        maximum=10_000,
        exclusive="quota",
    )
    by: tuple[str, ...] = option(
        (),
        help="columns or expressions: apply the quota to each group of equal values",
        metavar="EXPR",
    )
    rank: str | None = option(
        None,
        help="column or expression that --top, --bottom, --best, --for-labelling, --keep-best-of and the "
        f"order of --sheet go by (default: {SCORE})",
        metavar="EXPR",
    )
    weight: str | None = option(
        None, help="draw rows of --sample in proportion to this", metavar="EXPR"
    )
    stratify: str | None = option(
        None,
        help="draw equally many rows of --sample from each decile of this, such as score",
        metavar="EXPR",
    )
    seed: int = option(0, help="seed of --sample and --for-labelling", metavar="S", minimum=0)
    keep_best_of: str | None = option(
        None,
        help="of rows with an equal value keep the highest rank, and all rows without a value; duplicates "
        "is the column of --clusters",
        metavar="EXPR",
    )
    clusters: str | None = option(
        None,
        help="Parquet file with manifest_file, manifest_row and cluster; its columns are added to the rows",
        metavar="FILE",
        path=True,
    )
    manifest: str | None = option(
        None,
        help="the manifest that was scored, if it was moved, or to take its own URIs with their signatures",
        metavar="M",
        path=True,
    )
    rows_per_file: int | None = option(
        None,
        help="write a folder of .parquet files of this many rows (default: one file)",
        metavar="N",
        minimum=1,
    )
    allow_unfinished: bool = option(False, help="also select from an output that lacks rows")
    memory: str = option(
        "1GB", help="memory of the selection; the rest goes to TMPDIR", metavar="SIZE"
    )
    dry_run: bool = option(
        False, help="write no manifest: print the counts, and make the page of --sheet"
    )
    sheet: str | None = option(
        None,
        help="write a page with images on both sides of the limit (default with --dry-run: --output with "
        ".html at its end)",
        metavar="FILE.html",
        path=True,
    )
    sheet_images: int | None = option(
        None,
        help=f"images of each part of --sheet; 0 makes no page with --dry-run (default: {_IMAGES})",
        metavar="N",
        minimum=0,
    )
    json: bool = option(False, help="print the counts as JSON")
    allow_scheme: tuple[str, ...] = option(
        (), help="as for the run: further URI schemes allowed for images of --sheet", metavar="S"
    )
    allow_prefix: tuple[str, ...] = option(
        (),
        help="as for the run: read only images of --sheet whose URI begins with this",
        metavar="URI",
        path=True,
    )


def run(config: Config) -> int:
    """Select, print what went and why, and write the manifest and the page."""
    from iqa_core.selecting.clusters import open_clusters
    from iqa_core.selecting.engine import Engine
    from iqa_core.selecting.images import open_images
    from iqa_core.selecting.selection import Selection
    from iqa_core.selecting.sources import open_scores
    from iqa_core.selecting.write import ManifestTarget

    request = _request(config)
    request.check()
    _check_effects(config)
    if config.sheet is not None:
        inputs = (config.manifest, config.clusters)
        check_output_file("sheet", config.sheet, _PAGE, inputs)
    target = ManifestTarget.of(config.output, config.rows_per_file, dry_run=config.dry_run)
    sources = open_scores(config.scores, allow_unfinished=config.allow_unfinished)
    images = open_images(sources[0].plan, config.manifest)
    if not config.dry_run:
        check_no_part(config.output, [source.uri for source in sources])
        plans = [source.plan for source in sources]
        if config.manifest is not None:  # where it is now
            plans.append({"manifest": config.manifest, "folder": images.base})
        for plan in plans:
            check_not_in_manifest(config.output, plan)
    _print_notes(sources)
    clusters = None
    if config.clusters is not None:
        others = [source.name for source in sources[1:]]
        clusters = open_clusters(config.clusters, sources[0].schema.names, others)
        if config.keep_best_of is None:
            print(
                "--clusters only adds its columns to the rows: --keep-best-of duplicates keeps the best "
                "row of each cluster",
                file=sys.stderr,
            )
    with Engine(config.memory) as engine:
        selection = Selection(engine, sources, request, clusters)
        counts = selection.counts
        document = {"scores": [source.facts() for source in sources], **counts.document()}
        print(json.dumps(document, indent=2) if config.json else "\n".join(counts.lines()))
        if images.note:
            print(f"{sources[0].shown}: {images.note}", file=sys.stderr)
        sheet = _sheet_name(config)
        if sheet:
            _write_sheet(config, sheet, selection, images.base)
        if config.dry_run:
            return 0
        if not counts.kept:
            raise InputError("no row is selected: loosen the conditions")
        facts = {"selection": document | {"options": _described(config)}}
        tables = images.located(selection.rows(), target.folder)
        rows = target.write(tables, facts, counts.kept)
    if not config.json:
        print(f"{target.shown}: {rows:,} rows")
    return 0


def _request(config: Config) -> Request:
    from iqa_core.selecting.request import Request

    return Request(
        statuses=config.status,
        where=config.where,
        keep_best_of=config.keep_best_of,
        rank=SCORE if config.rank is None else config.rank,
        top=config.top,
        bottom=config.bottom,
        best=config.best,
        sample=config.sample,
        for_labelling=config.for_labelling,
        by=config.by,
        weight=config.weight,
        stratify=config.stratify,
        seed=config.seed,
    )


def _check_effects(config: Config) -> None:
    """Refuse options that would have no effect.

    Raises:
        InputError: If one was given.
    """
    if config.sheet is not None and config.sheet_images == 0:
        raise InputError("--sheet-images 0 makes no page: leave it out, or --sheet")
    if config.sheet_images is not None and config.sheet is None and not config.dry_run:
        raise InputError(
            "--sheet-images has an effect with --sheet and --dry-run only: add one, or leave it out"
        )
    if (config.allow_scheme or config.allow_prefix) and not _sheet_name(config):
        name = "--allow-scheme" if config.allow_scheme else "--allow-prefix"
        raise InputError(f"{name} has an effect with a page only: add --sheet or --dry-run")
    if config.rank is not None and not _ranks_rows(config) and not _sheet_name(config):
        raise InputError(
            "--rank has an effect with --top, --bottom, --best, --for-labelling, --keep-best-of and "
            "--sheet only: add one, or leave it out"
        )


def _ranks_rows(config: Config) -> bool:
    """Return whether --rank decides on rows, and not on the order of a page only."""
    ranked = (config.top, config.bottom, config.best, config.for_labelling, config.keep_best_of)
    return any(value is not None for value in ranked)


def _print_notes(sources: list[ScoreSource]) -> None:
    """Print what a user should know of the outputs on standard error."""
    first, *others = sources
    for source in sources:
        if source.missing:
            print(
                f"{source.shown} is unfinished: {source.missing:,} rows are missing",
                file=sys.stderr,
            )
        if source.left_out:
            names = ", ".join(source.left_out)
            print(
                f"{source.shown}: columns of types without SQL, or of names that differ in case "
                f"only, are left out: {names}",
                file=sys.stderr,
            )
    for other in others:
        both = first.shared_rows(other)
        if both < max(first.rows, other.rows):
            print(
                f"{both:,} rows are in both outputs; {first.rows - both:,} in {first.shown} only, where "
                f"{other.name} has no values; {other.rows - both:,} in {other.shown} only, left out",
                file=sys.stderr,
            )


def _described(config: Config) -> dict[str, Any]:
    """Return the options that are not the defaults, without secrets."""
    from iqa_core.redaction import redact

    values = {**asdict(config)}
    defaults = asdict(Config(scores=(), output=""))
    given = {name: value for name, value in values.items() if value != defaults[name]}
    return {
        name: [redact(str(v)) for v in value]
        if isinstance(value, (list, tuple))
        else redact(value)
        if isinstance(value, str)
        else value
        for name, value in given.items()
    }


def _sheet_name(config: Config) -> str | None:
    if config.sheet_images == 0:
        return None
    if config.sheet is None and config.dry_run:
        return config.output.rstrip("/").removesuffix(".parquet") + _PAGE
    return config.sheet


def _write_sheet(config: Config, sheet: str, selection: Selection, folder: str | None) -> None:
    from iqa_core.pages.selection import selection_page
    from iqa_core.storage.folder import Folder

    counts = selection.counts
    words = ["iqa", "select"]
    of_page = {"dry_run", "sheet", "sheet_images", "json"}
    of_page |= set() if _ranks_rows(config) else {"rank"}
    for name, value in _described(config).items():
        if name not in of_page:
            word = "--" + name.replace("_", "-")
            values = [
                str(v) for v in (value if isinstance(value, list) else [value]) if v is not True
            ]
            if len(values) == 1 and values[0].startswith("-"):  # as in --rank=-score
                word += f"={values.pop()}"
            words += [word, *values]
    document = selection_page(
        "Selection",
        shlex.join(words),
        counts.rows,
        [(left.reason, left.rows, left.detail) for left in counts.left],
        counts.kept,
        selection.examples(config.sheet_images or _IMAGES),
        folder=folder,
        schemes=(*DEFAULT_SCHEMES, *config.allow_scheme),
        prefixes=config.allow_prefix,
    )
    try:
        target, name = Folder.of_file(sheet, "sheet")
        target.write(name, document.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"--sheet {sheet} can't be written: {error}") from error
    print(
        f"{sheet}: images on both sides of the limit",
        file=sys.stderr if config.json else sys.stdout,
    )
