"""Tests of iqa_core/scoring/columns.py: the columns of several views of an image."""

from __future__ import annotations

import numpy as np

from iqa_core.scoring.columns import crop_score_columns, score_columns
from iqa_core.scoring.features import PromptFeatures


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_views_are_averaged_and_their_lowest_and_spread_are_written():
    generator = np.random.default_rng(0)
    prompts = PromptFeatures(
        ("a", "b"), unit(generator.normal(size=(2, 2, 6))).astype(np.float32), 3.0, "digest"
    )
    features = unit(generator.normal(size=(4, 5, 6))).astype(np.float32)
    features[2, 3] = np.nan
    found = crop_score_columns(features, prompts)
    views = [score_columns(features[:, view], prompts) for view in range(5)]
    score = np.stack([view["score"].to_numpy(zero_copy_only=False) for view in views])
    good = [0, 1, 3]
    for name, expected in (
        ("score", score.mean(axis=0)),
        ("score_low", score.min(axis=0)),
        ("score_spread", score.std(axis=0)),
    ):
        values = found[name].to_numpy(zero_copy_only=False)
        np.testing.assert_allclose(values[good], expected[good], atol=1e-6)
        assert found[name].null_count == 1
        assert found[name][2].as_py() is None
    for name in ("scores", "margins"):
        each = np.array([[view[name].field("b")[row].as_py() for row in good] for view in views])
        values = found[name].field("b").to_numpy(zero_copy_only=False)[good]
        np.testing.assert_allclose(values, each.mean(axis=0), atol=1e-5)


def test_one_view_has_the_scores_of_an_image():
    prompts = PromptFeatures(("a",), np.array([[[1, 0], [0, 1]]], np.float32), 2.0, "digest")
    features = unit(np.array([[1.0, 2.0], [3.0, 1.0]], np.float32))
    one, several = score_columns(features, prompts), crop_score_columns(features[:, None], prompts)
    for name in ("score", "scores", "margins"):
        assert one[name].equals(several[name])
    assert several["score_spread"].to_pylist() == [0.0, 0.0]
    assert several["score_low"].equals(one["score"])
