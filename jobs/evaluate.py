"""Compare scores with human opinion: correlations, intervals, and differences between runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from iqa_core.errors import InputError
from iqa_core.evaluation.describe import describe
from iqa_core.evaluation.evaluate import evaluate
from iqa_core.evaluation.labels.join import join_labels
from iqa_core.pages.scatter import draw_scatter
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.output_file import check_output_file

from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa evaluate``."""

    scores: tuple[str, ...] = option(
        help="output folders of `iqa score` or `iqa rescore`; several are compared with each other",
        metavar="O",
        path=True,
    )
    labels: str | None = option(
        None,
        help="the manifest that was scored, or a CSV, .xlsx or Parquet file with image_id or file names "
        "(default: the columns that the scores kept)",
        metavar="L",
        path=True,
    )
    label_column: str = option("mos", help="column that holds the labels", metavar="COLUMN")
    lower_is_better: bool = option(
        False, help="a low label is a good image, as in DMOS: invert the correlations"
    )
    pair: str | None = option(
        None,
        help="evaluate the scores of this prompt pair, such as sharpness (default: the mean over pairs)",
        metavar="NAME",
    )
    by: str | None = option(
        None, help="also evaluate each value of this column, such as distortion", metavar="COLUMN"
    )
    where: str | None = option(
        None, help="use only images with this value, such as split=test", metavar="COLUMN=VALUE"
    )
    join: Literal["auto", "identity", "image_id"] = option(
        "auto",
        help="join by position in the manifest (identity) or by image_id; auto joins by position if the "
        "labels are the manifest that was scored",
    )
    resamples: int = option(
        1000, help="number of bootstrap resamples; 0 computes no intervals", metavar="N", minimum=0
    )
    resample_by: str | None = option(
        None,
        help="bootstrap over groups of images with the same value, such as reference (default: over "
        "single images)",
        metavar="COLUMN",
    )
    confidence: float = option(
        0.95,
        help="confidence level of the intervals",
        metavar="X",
        above=0,
        maximum=0.999,
    )
    seed: int = option(0, help="seed of the bootstrap", metavar="S", minimum=0)
    figure: str | None = option(
        None,
        help="draw scores, labels and the fitted curve to an .svg file",
        metavar="FILE",
        path=True,
    )
    json: bool = option(False, help="print JSON instead of text")


def run(config: Config) -> int:
    """Join, evaluate, draw and print; return the exit status."""
    if config.figure:
        check_output_file("figure", config.figure, ".svg", (*config.scores, config.labels))
    joined = join_labels(
        config.scores,
        config.labels,
        label_column=config.label_column,
        join=config.join,
        group_column=config.by,
        cluster_column=config.resample_by,
        where=config.where,
        pair=config.pair,
    )
    evaluation = evaluate(
        joined.scores,
        joined.labels,
        groups=joined.groups,
        clusters=joined.clusters,
        lower_is_better=config.lower_is_better,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    if config.figure:
        folder, name = Folder.of_file(config.figure, "figure")
        drawn = draw_scatter(
            evaluation, joined.scores, joined.labels, label_name=config.label_column
        )
        try:
            folder.write(name, drawn.encode())
        except OSError as error:
            raise InputError(
                f"--figure {redact(config.figure)} can't be written: {error_line(error)}"
            ) from error
    if config.json:
        rows = {
            name: {"rows": rows, "used": evaluation.count, "left_out": joined.left_out[name]}
            for name, rows in joined.rows.items()
        }
        document = {"join": joined.join, "label": config.label_column, "scores": rows}
        document["notes"] = list(joined.notes)
        print(json.dumps(document | evaluation.as_dict(), indent=2))
    else:
        print(
            "\n".join([*joined.describe(), f"joined by {joined.join}", "", *describe(evaluation)])
        )
    return 0
