"""Tests of iqa_core/training/check.py: patience and divergence."""

from __future__ import annotations

import torch

from iqa_core.training.loop import train
from tests.iqa_core.training.rows import (
    new_learner,
    settings,
)


def test_patience_ends_training(towers, data):
    chosen = settings(
        towers, steps=1000, checkpoint_steps=1, patience=2, learning_rate=1.0, warmup=0
    )
    state = train(new_learner(towers), towers.text, data, chosen)
    assert state.ended == "patience"
    assert state.step == state.best_step + 2


def test_divergence_is_noticed(towers, data):
    chosen = settings(towers, learning_rate=1e38, warmup=0, optimizer="sgd")
    learner = new_learner(towers)
    state = train(learner, towers.text, data, chosen)
    assert state.ended == "diverged"
    assert torch.isfinite(learner.context).all()
