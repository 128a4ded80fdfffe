"""Find duplicates among scored images: files with equal bytes, and images that show almost the same.

Reads the columns that `iqa score --hash --descriptors` writes, and no image. Writes a Parquet file with one
row for each image that has a duplicate.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

from iqa_core.duplicates.clusters import DEFAULT_THRESHOLD, MOST_EXACT, find_clusters
from iqa_core.duplicates.rows import read_image_rows
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.output_checks import check_no_part, check_not_in_manifest
from iqa_core.tables.plan import read_plan

from .options import option

__all__ = ["Config", "run"]

_METADATA_KEY = b"iqa_duplicates"
#: Options that only near copies depend on.
_OF_NEAR = ("features", "threshold", "compare_all")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa duplicates``."""

    scores: str = option(help="output folder of `iqa score` or `iqa embed`", metavar="O", path=True)
    output: str = option(help="the clusters to write, a .parquet file", metavar="FILE", path=True)
    features: str | None = option(
        None,
        help="find near copies by the features of a model instead of descriptors: output of `iqa embed` or "
        "`iqa score --embeddings` of the same manifest, also O itself",
        metavar="F",
        path=True,
    )
    near: bool = option(
        True, help="also find near copies, where there are descriptors or --features"
    )
    threshold: float | None = option(
        None,
        help="smallest cosine of near copies; each model's features need another one (default: "
        f"{DEFAULT_THRESHOLD} for descriptors)",
        metavar="X",
        above=0,
        maximum=1,
    )
    compare_all: int | None = option(
        None,
        help="up to this number of different images each is compared with each other; beyond it, an index "
        f"finds nearly all pairs (default: {MOST_EXACT})",
        metavar="N",
        minimum=0,
    )


def run(config: Config) -> int:
    """Write the clusters and print a summary."""
    import pyarrow.parquet as pq

    of_near = {f"--{name.replace('_', '-')}": getattr(config, name) for name in _OF_NEAR}
    of_near = {flag: value for flag, value in of_near.items() if value is not None}
    if of_near and not config.near:
        raise InputError(
            f"--no-near finds no near copies, which {' and '.join(of_near)} would be for: leave out the "
            "former or the latter"
        )
    inputs = (config.scores, config.features)
    check_output_file("output", config.output, ".parquet", inputs)
    check_no_part(config.output, inputs)
    check_not_in_manifest(config.output, read_plan(Folder.given(config.scores, "scores")))
    if config.features is not None and config.threshold is None:
        raise InputError(
            "--features need a --threshold, which depends on the model: try 0.95 and look at what it finds"
        )
    rows = read_image_rows(
        config.scores, config.features, near=config.near, of_near=" and ".join(of_near)
    )
    threshold = DEFAULT_THRESHOLD if config.threshold is None else config.threshold
    most_exact = MOST_EXACT if config.compare_all is None else config.compare_all
    clusters = find_clusters(rows, threshold, most_exact=most_exact)
    table = clusters.with_identities(rows)
    facts = {
        "scores": redact(config.scores),
        "features": config.features and redact(config.features),
        "threshold": clusters.threshold,
        "rows": len(rows),
    }
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(facts)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    folder, slash, name = config.output.rpartition("/")
    try:
        Folder.given(folder or slash or ".", "output").write(name, buffer.getvalue())
    except OSError as error:
        raise InputError(f"--output {config.output} can't be written: {error}") from error
    print(f"{redact(config.output)}: of {len(rows):,} images, {clusters.describe()}")
    return 0
