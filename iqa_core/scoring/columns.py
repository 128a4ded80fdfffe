"""The score columns of the output, from image features and prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from iqa_core.columns import MARGINS, SCORE, SCORES
from iqa_core.scoring.margins import score_features

if TYPE_CHECKING:
    from iqa_core.scoring.features import PromptFeatures

__all__ = ["score_columns"]


def score_columns(features: np.ndarray, prompts: PromptFeatures) -> dict[str, pa.Array]:
    """Score features by prompts.

    Args:
        features: (N, D), not finite where an image failed.
        prompts: P pairs of width D.

    Returns:
        The columns ``score``, ``scores`` and ``margins`` of the output, null where an image failed
        or its features or scores are not finite (:func:`iqa_core.scoring.scorer.score_features`).
    """
    margin, scores, score = score_features(features, prompts)
    missing = np.isnan(score)
    columns = {SCORE: pa.array(score, pa.float32(), mask=missing)}
    for column, values in ((SCORES, scores), (MARGINS, margin)):
        per_pair = [pa.array(values[:, place]) for place in range(len(prompts.names))]
        columns[column] = pa.StructArray.from_arrays(
            per_pair, names=list(prompts.names), mask=pa.array(missing)
        )
    return columns
