"""Margins and scores as formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from iqa_core.scoring.features import PromptFeatures
from iqa_core.scoring.margins import (
    image_scores,
    image_scores_f64,
    margins,
    pair_margins,
    pair_scores,
    pair_scores_f64,
)


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    """Random vectors of length 1."""
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def prompts(pairs: int, width: int, scale: float) -> PromptFeatures:
    names = tuple(f"pair{i}" for i in range(pairs))
    return PromptFeatures(names, unit(pairs, 2, width, seed=1), scale, "digest")


def test_a_margin_by_hand():
    features = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    texts = np.array([[[1, 0], [0, 1]]], dtype=np.float32)
    result = margins(features, PromptFeatures(("a",), texts, 5.0, ""))
    np.testing.assert_allclose(result, [[5 * (1 - 0)], [5 * (0.6 - 0.8)]], rtol=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_margins_are_the_formula(scale):
    features, table = unit(7, 32), prompts(3, 32, scale)
    result = margins(features, table)
    for i in range(7):
        for p in range(3):
            cosines = [float(features[i] @ table.features[p, side]) for side in (0, 1)]
            assert result[i, p] == pytest.approx(scale * (cosines[0] - cosines[1]), abs=2e-5)


def test_margins_of_half_precision_features_are_computed_in_full():
    features, table = unit(7, 32).astype(np.float16), prompts(3, 32, 100)
    np.testing.assert_array_equal(
        margins(features, table), margins(features.astype(np.float32), table)
    )


def test_margins_of_nearly_equal_prompts_keep_their_digits():
    """Two logits of about 100 that differ in the sixth digit: float32 would round them first."""
    near = np.array([[[1, 1e-4], [1, 0]]], dtype=np.float32)
    result = margins(np.array([[1, 0.5]], dtype=np.float32), PromptFeatures(("a",), near, 100, ""))
    assert result[0, 0] == pytest.approx(100 * 1e-4 * 0.5, rel=1e-6)


def test_a_pair_score_is_the_two_way_softmax():
    features, table = unit(50, 8), prompts(4, 8, 20)
    logits = 20 * np.einsum("nd,psd->nps", features.astype(np.float64), table.features)
    softmax = np.exp(logits[..., 0]) / np.exp(logits).sum(axis=-1)
    assert np.ptp(softmax) > 0.9
    np.testing.assert_allclose(pair_scores(margins(features, table)), softmax, rtol=0, atol=1e-6)


def test_the_sigmoid_of_single_margins():
    scores = pair_scores(np.array([[0, math.log(3), -math.log(3), 1000, -1000, np.nan]]))
    np.testing.assert_allclose(scores, [[1 / 2, 3 / 4, 1 / 4, 1, 0, np.nan]], rtol=1e-6)
    assert scores.dtype == np.float32


def test_a_pair_score_does_not_depend_on_its_place():
    """Not in its last bit: the same features have the same scores in blocks of any size."""
    margin = np.random.default_rng(0).normal(scale=5, size=100_000).astype(np.float32)
    whole = pair_scores(margin)
    for length in (1, 7, 25, 250, 4097):
        parts = [
            pair_scores(margin[start : start + length]) for start in range(0, 20 * length, length)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole[: 20 * length])


def test_an_images_score_is_the_mean_over_pairs():
    scores = np.array([[0.1, 0.2, 0.6], [0, 0, 0.3], [1, np.nan, 1]], dtype=np.float32)
    result = image_scores(scores)
    np.testing.assert_allclose(result, [(0.1 + 0.2 + 0.6) / 3, 0.3 / 3, np.nan], rtol=1e-6)
    assert result.dtype == np.float32


def test_the_largest_scale_gives_finite_margins():
    texts = np.array([[[1, 0], [-1, 0]]], dtype=np.float32)
    largest = PromptFeatures(("a",), texts, 1e38, "")
    assert np.isfinite(margins(np.array([[1, 0], [-1, 0]], dtype=np.float32), largest)).all()


def test_pair_margins_are_the_scaled_difference_of_cosines():
    texts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]])
    images = torch.tensor([[0.8, 0.6]])
    expected = torch.tensor([[10 * (0.8 - 0.6), 10 * ((0.8 * 0.6 + 0.6 * 0.8) - 0.8)]])
    torch.testing.assert_close(pair_margins(texts, images, 10.0), expected)


def test_image_scores_f64():
    margin = torch.tensor([[0.0, 2.0], [30.0, 31.0]], requires_grad=True)
    each = pair_scores_f64(margin)
    assert each.shape == (2, 2)
    assert each[0].tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-2))])
    assert not each.requires_grad
    ensemble = image_scores_f64(margin)
    assert ensemble.shape == (2, 1)
    assert ensemble[0].item() == pytest.approx((0.5 + 1 / (1 + math.exp(-2))) / 2)
    assert each[1, 0] < each[1, 1] < 1, "float32 would have tied these"


def test_the_formula_in_torch_is_that_in_numpy():
    features, table = unit(50, 32), prompts(4, 32, 100)
    expected = margins(features, table)
    found = pair_margins(torch.from_numpy(table.features), torch.from_numpy(features), 100)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)
    tensor = torch.from_numpy(expected)
    each, mean = pair_scores_f64(tensor), image_scores_f64(tensor)
    assert {each.dtype, mean.dtype} == {torch.float64}
    np.testing.assert_allclose(each.numpy(), pair_scores(expected), rtol=0, atol=1e-6)
    whole = image_scores(pair_scores(expected))
    np.testing.assert_allclose(mean[:, 0].numpy(), whole, rtol=0, atol=1e-6)
