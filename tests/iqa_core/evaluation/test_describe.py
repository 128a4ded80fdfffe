"""Tests of iqa_core/evaluation/describe.py."""

from __future__ import annotations

import numpy as np

from iqa_core.evaluation.describe import describe
from iqa_core.evaluation.evaluate import evaluate
from tests.iqa_core.evaluation.opinions import opinions


def test_text_tells_images_intervals_and_the_wrong_direction():
    x, y = opinions(100)
    text = "\n".join(describe(evaluate({"a": x}, 100 - y, resamples=40)))
    assert text.startswith("100 images; 95% bootstrap intervals from 40 resamples of images")
    assert "a falls as the labels rise" in text
    assert "give --lower-is-better." in text
    wrong = evaluate({"a": x}, y, resamples=0, lower_is_better=True)
    text = "\n".join(describe(wrong))
    assert (
        "a rises with the labels. If a high label is a good image (MOS), leave out --lower" in text
    )
    assert "give --lower-is-better" not in text
    text = "\n".join(describe(evaluate({"a": x}, y, resamples=0)))
    assert "no intervals" in text
    assert "[" not in text
    assert "falls" not in text


def test_text_says_why_there_is_no_correlation():
    x, y = opinions(20)
    both = {"a": x, "b": np.full(20, 0.5)}
    text = "\n".join(describe(evaluate(both, y, resamples=0)))
    assert "b has no correlation: all labels, or all its scores, are equal." in text
    assert "a has no correlation" not in text
    text = "\n".join(describe(evaluate({"a": x}, np.full(20, 3.0), resamples=0)))
    assert "a has no correlation" in text
