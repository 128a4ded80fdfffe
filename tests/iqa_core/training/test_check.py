"""Tests of iqa_core/training/check.py: divergence, and scores of several contexts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iqa_core.training.check import agreement, held_out_margins, mean_scores
from iqa_core.training.loop import train
from tests.iqa_core.training.rows import (
    new_learner,
    settings,
)


def test_divergence_is_noticed(towers, data):
    chosen = settings(towers, learning_rate=1e38, warmup=0, optimizer="sgd")
    state = train(new_learner(towers), towers.text, data, chosen)
    assert state.ended == "diverged"
    assert state.step < chosen.steps


def test_several_contexts_score_as_the_mean_of_each(towers, data):
    features = data.held_out().features
    both = new_learner(towers, contexts=2)
    margins = held_out_margins(both, towers.text, features, towers.logit_scale)
    assert margins.shape == (data.held_out_rows, 2, 3)
    each = []
    for seed in range(2):
        one = held_out_margins(new_learner(towers, seed), towers.text, features, towers.logit_scale)
        torch.testing.assert_close(one[:, 0], margins[:, seed], rtol=0, atol=1e-5)
        each.append(mean_scores(one))
    np.testing.assert_allclose(mean_scores(margins), np.mean(each, axis=0), atol=1e-6)
    assert agreement(margins, mean_scores(margins)[:, None], per_pair=False) == pytest.approx(1)
    weighted = mean_scores(margins, np.array([0, 1, 0]))
    np.testing.assert_allclose(weighted, margins[:, :, 1].double().sigmoid().mean(1))
