"""Tests of iqa_core/training/settings.py: unusable values, the learning rate."""

from __future__ import annotations

import math

import pytest
import torch

from iqa_core.errors import InputError
from iqa_core.training.settings import learning_rate, relative_rate
from tests.iqa_core.training.rows import (
    settings,
)


def test_learning_rate_warms_up_and_falls_as_a_cosine(towers):
    chosen = settings(towers, steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, chosen) for step in range(101)]
    assert rates[0] == 1 / 10
    assert rates[9:11] == [1.0, 1.0]
    assert rates[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert rates[100] == pytest.approx(0.0)
    assert learning_rate(0, settings(towers, warmup=0, learning_rate=2.0)) == 2.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss": "listmler"}, "loss 'listmler' is none of ranknet, margin"),
        ({"loss_options": {"temperature": 1.0}}, "loss listmle has no hyper-parameter"),
        ({"list_size": 1}, r"list_size \(1\) must be at least 2"),
        ({"checkpoint_steps": 0}, r"checkpoint_steps \(0\) must be at least 1"),
    ],
)
def test_unusable_settings(towers, options, text):
    with pytest.raises(InputError, match=text):
        settings(towers, **options)


def test_the_rate_follows_the_scale_of_the_tokens():
    tokens = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert relative_rate(3 * tokens) == pytest.approx(3 * relative_rate(tokens))
    assert relative_rate(0.02 * tokens / tokens.std()) == pytest.approx(0.002)
