"""Tests of iqa_core/training/trust.py: a teacher's trust from degraded copies."""

from __future__ import annotations

import numpy as np
import torch

from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import margins as scoring_margins
from tests.iqa_core.training.rows import (
    written,
)


def test_trust_is_measured_for_each_pair(viewed, towers, tmp_path):
    pairs = [
        PromptPair("good", "Good photo.", "Bad photo."),
        PromptPair("turned", "Bad photo.", "Good photo."),
    ]
    prompts = encode_prompts(towers, pairs)
    each = written(viewed, str(tmp_path / "e"), prompts, holdout=0.2, teacher="per-pair")
    assert each.trust[0] > 0.25
    assert each.trust[1] == 0.0
    # In the ensemble, only the pair that is right counts.
    both = written(viewed, str(tmp_path / "b"), prompts, holdout=0.2)
    assert both.trust == (each.trust[0],) * 2
    features, targets = both.held_out()[:2]
    margins = torch.from_numpy(scoring_margins(np.array(features), prompts)).double()
    np.testing.assert_allclose(targets[:, 0], margins.sigmoid()[:, 0].numpy(), atol=1e-6)
