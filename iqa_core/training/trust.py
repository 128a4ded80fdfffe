"""How far a teacher can be trusted: its agreement with the known order of degraded copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.columns import EMBEDDING, VIEW_LEVELS, VIEWS
from iqa_core.scoring.margins import image_scores_f64, margins, pair_scores_f64
from iqa_core.tables.feature_cache import features_of, views_of
from iqa_core.training.known_order import known_order_agreement, reliability

if TYPE_CHECKING:
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.feature_cache import FeatureCache

__all__ = ["ensemble_scores", "measure_trust"]

#: Number of views from which trust is measured.
_TRUST_VIEWS = 4096


def measure_trust(cache: FeatureCache, prompts: PromptFeatures) -> tuple[np.ndarray, float]:
    """Measure on the first rows of a cache how reliable fixed prompts are.

    Args:
        cache: Features with views.
        prompts: Features of the P fixed base prompts.

    Returns:
        (P,) weights in [0, 1] of the pairs, and the weight of their ensemble by these weights.
    """
    values: list[torch.Tensor] = []
    levels: list[torch.Tensor] = []
    for table in cache.tables([EMBEDDING, VIEWS, VIEW_LEVELS]):
        images, (copies, strengths) = features_of(table), views_of(table)
        present = np.isfinite(images).all(axis=1)
        both = np.concatenate([images[present, None], copies[present]], axis=1)
        values.append(torch.from_numpy(margins(both.reshape(-1, cache.width), prompts)))
        zero = np.zeros((len(strengths), 1), dtype=np.int8)
        levels.append(torch.from_numpy(np.concatenate([zero, strengths], axis=1)[present].ravel()))
        if sum(map(len, values)) >= _TRUST_VIEWS:
            break
    margin, level = torch.cat(values)[:_TRUST_VIEWS], torch.cat(levels)[:_TRUST_VIEWS]
    weights = reliability(known_order_agreement(margin, level))
    scores = ensemble_scores(margin, weights.numpy())
    return weights.numpy(), float(reliability(known_order_agreement(scores, level))[0])


def ensemble_scores(margin: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """Return the weighted mean of the pair scores.

    Args:
        margin: (N, P) logit margins.
        weights: (P,), at least 0. The plain mean is taken if all are 0.

    Returns:
        (N, 1) float64 in [0, 1].
    """
    if not weights.any() or (weights == weights[0]).all():
        return image_scores_f64(margin)
    each = pair_scores_f64(margin)
    return each @ torch.from_numpy(weights / weights.sum())[:, None]
