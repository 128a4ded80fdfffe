"""The score columns of the output, from image features and prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from iqa_core.columns import MARGINS, SCORE, SCORE_LOW, SCORE_SPREAD, SCORES
from iqa_core.scoring.margins import score_features

if TYPE_CHECKING:
    from iqa_core.scoring.features import PromptFeatures

__all__ = ["crop_score_columns", "score_columns"]


def score_columns(features: np.ndarray, prompts: PromptFeatures) -> dict[str, pa.Array]:
    """Score features by prompts.

    Args:
        features: (N, D), not finite where an image failed.
        prompts: P pairs of width D.

    Returns:
        The columns ``score``, ``scores`` and ``margins`` of the output, null where an image failed
        or its features or scores are not finite (:func:`iqa_core.scoring.scorer.score_features`).
    """
    return _columns(*score_features(features, prompts), prompts)


def crop_score_columns(features: np.ndarray, prompts: PromptFeatures) -> dict[str, pa.Array]:
    """Score several views of each image.

    Args:
        features: (N, C, D) of C views.
        prompts: P pairs of width D.

    Returns:
        The columns of :func:`score_columns` as means over views, and the lowest score and the standard
        deviation (of C values, not of a sample); all null where a view has no finite score.
    """
    views = [score_features(features[:, view], prompts) for view in range(features.shape[1])]
    margin, scores, score = (
        np.stack(values).mean(axis=0, dtype=np.float64).astype(np.float32)
        for values in zip(*views, strict=True)
    )
    columns = _columns(margin, scores, score, prompts)
    each = np.stack([values for _, _, values in views]).astype(np.float64)
    missing = np.isnan(score)
    for name, values in ((SCORE_LOW, each.min(axis=0)), (SCORE_SPREAD, each.std(axis=0))):
        columns[name] = pa.array(values.astype(np.float32), pa.float32(), mask=missing)
    return columns


def _columns(
    margin: np.ndarray, scores: np.ndarray, score: np.ndarray, prompts: PromptFeatures
) -> dict[str, pa.Array]:
    missing = np.isnan(score)
    columns = {SCORE: pa.array(score, pa.float32(), mask=missing)}
    for column, values in ((SCORES, scores), (MARGINS, margin)):
        per_pair = [pa.array(values[:, place]) for place in range(len(prompts.names))]
        columns[column] = pa.StructArray.from_arrays(
            per_pair, names=list(prompts.names), mask=pa.array(missing)
        )
    return columns
