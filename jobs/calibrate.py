"""Fit a monotone map from scores to opinion scores (MOS), from a few hundred labels.

Writes a small JSON file. `iqa score --calibration` and `iqa rescore --calibration` add the predicted
opinion score and its interval to every row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from iqa_core.evaluation.calibration import FEWEST_LABELS, Calibration, calibrate
from iqa_core.evaluation.calibration_file import CalibrationFile
from iqa_core.evaluation.labels.join import join_labels
from iqa_core.redaction import redact
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.output import stored_fingerprint

from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa calibrate``."""

    scores: str = option(
        help="output folder of `iqa score` or `iqa rescore`", metavar="O", path=True
    )
    labels: str | None = option(
        None,
        help=f"labels of at least {FEWEST_LABELS} of its images, as of `iqa evaluate` (default: the "
        "columns that the scores kept)",
        metavar="L",
        path=True,
    )
    output: str = option(help="the calibration to write, a .json file", metavar="C.json", path=True)
    label_column: str = option("mos", help="column that holds the labels", metavar="COLUMN")
    lower_is_better: bool = option(False, help="a low label is a good image, as in DMOS")
    where: str | None = option(
        None, help="use only images with this value, such as split=train", metavar="COLUMN=VALUE"
    )
    join: Literal["auto", "identity", "image_id"] = option(
        "auto", help="how labels are matched, as of `iqa evaluate`"
    )
    kind: Literal["auto", "logistic", "isotonic"] = option(
        "auto", help="the curve; auto takes the one with the smaller error in cross-validation"
    )
    coverage: float = option(
        0.9,
        help="share of new images whose label the interval holds",
        metavar="X",
        above=0,
        maximum=0.999,
    )
    seed: int = option(0, help="seed of the folds", metavar="S", minimum=0)


def run(config: Config) -> int:
    """Join, fit, write and print; return the exit status."""
    inputs = (config.scores, config.labels)
    check_output_file("output", config.output, ".json", inputs)
    joined = join_labels(
        [config.scores],
        config.labels,
        label_column=config.label_column,
        join=config.join,
        where=config.where,
    )
    [scores] = joined.scores.values()
    found = calibrate(
        scores,
        joined.labels,
        kind=None if config.kind == "auto" else config.kind,
        coverage=config.coverage,
        lower_is_better=config.lower_is_better,
        seed=config.seed,
    )
    file = CalibrationFile.of(found, config.label_column, stored_fingerprint(config.scores))
    file.write(config.output)
    print("\n".join(joined.describe()))
    constant = np.std(joined.labels)
    print(
        f"error in cross-validation (RMSE): {_describe_errors(found)}; of a constant {constant:.3g}"
    )
    low, high = found.label_range
    print(
        f"{found.kind} curve from {found.labels:,} labels ({low:g} to {high:g}), SRCC {found.srcc:.3f}; "
        f"{100 * found.coverage:g}% of new images are to be within {found.half_width:.3g} of it"
    )
    print(f"written to {redact(config.output)}, for --calibration")
    return 0


def _describe_errors(found: Calibration) -> str:
    direction = "rising" if found.increasing else "falling"
    return ", ".join(
        f"{kind}: no {direction} curve in some folds"
        if math.isnan(error)
        else f"{kind} {error:.3g}"
        for kind, error in found.rmse.items()
    )
