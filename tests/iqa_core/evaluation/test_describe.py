"""Tests of iqa_core/evaluation/describe.py."""

from __future__ import annotations

import numpy as np

from iqa_core.evaluation.describe import describe
from iqa_core.evaluation.evaluate import evaluate


def opinions(count=300, noise=4.0, seed=0):
    """Scores in [0, 1] and MOS of 0 to 100 that bends with them."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=count)
    return x, 20 + 60 / (1 + np.exp(-(x - 0.45) / 0.09)) + 8 * x + noise * rng.normal(size=count)


def test_text_tells_images_intervals_and_the_wrong_direction():
    x, y = opinions(100)
    text = "\n".join(describe(evaluate({"a": x}, 100 - y, resamples=40)))
    assert text.startswith("100 images; 95% bootstrap intervals from 40 resamples of images")
    assert "a falls as the labels rise" in text
    assert "--lower-is-better" in text
    text = "\n".join(describe(evaluate({"a": x}, y, resamples=0)))
    assert "no intervals" in text
    assert "[" not in text
    assert "falls" not in text
