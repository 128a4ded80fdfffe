"""Prompts to unit features, and the digest that a run's fingerprint holds."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.prompts.pairs import PromptPair, load_pairs
from iqa_core.scoring.features import PromptFeatures, encode_prompts


@pytest.fixture(scope="module")
def towers():
    return load_towers("tiny")


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    """Random vectors of length 1."""
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def test_prompts_are_encoded_by_pair_and_side(towers):
    pairs = load_pairs("pyiqa")
    encoded = encode_prompts(towers, pairs)
    assert encoded.names == tuple(pair.name for pair in pairs)
    assert encoded.features.shape == (5, 2, 128)
    assert encoded.features.dtype == np.float32
    for i, pair in enumerate(pairs):
        for side, text in enumerate((pair.positive, pair.negative)):
            alone = towers.text.encode([text])[0].numpy()
            np.testing.assert_allclose(encoded.features[i, side], alone, rtol=0, atol=1e-6)


def test_the_scale_is_the_models_own_unless_given(towers):
    pairs = load_pairs("clip-iqa")
    assert encode_prompts(towers, pairs).logit_scale == towers.logit_scale
    assert encode_prompts(towers, pairs, 1).logit_scale == 1


@pytest.mark.parametrize("scale", [0, -1, math.inf, math.nan])
def test_a_scale_that_is_none(towers, scale):
    with pytest.raises(
        InputError, match=rf"logit_scale \({scale}\) must be a finite number above 0"
    ):
        encode_prompts(towers, load_pairs("clip-iqa"), scale)


def test_pairs_that_can_not_be_told_apart(towers):
    pair = PromptPair("good", "a good photo", "a bad photo")
    with pytest.raises(InputError, match=r"prompt pairs are named \[\]: give one or more"):
        encode_prompts(towers, [])
    with pytest.raises(
        InputError, match=r"are named \['good', 'good'\]: give .* with distinct names"
    ):
        encode_prompts(towers, [pair, replace(pair, positive="a fine photo")])


def test_the_digest_changes_with_all_that_changes_a_score(towers):
    pair = PromptPair("good", "a good photo", "a bad photo")
    digests = [
        encode_prompts(towers, [pair]).digest,
        encode_prompts(towers, [replace(pair, name="fine")]).digest,
        encode_prompts(towers, [replace(pair, positive="a fine photo")]).digest,
        encode_prompts(towers, [replace(pair, negative="a poor photo")]).digest,
        encode_prompts(towers, [pair], 1).digest,
        encode_prompts(towers, [pair, replace(pair, name="fine")]).digest,
        encode_prompts(
            replace(towers, image=SimpleNamespace(digest="other weights")), [pair]
        ).digest,
        encode_prompts(replace(towers, quick_gelu=True), [pair]).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert encode_prompts(towers, [pair]).digest == digests[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 2.0])
def test_prompt_features_that_are_no_directions_are_refused(value):
    features = unit(3, 2, 8)
    features[1, 0] = value
    with pytest.raises(
        InputError, match=r"prompt pair 'b' are not finite numbers of length 1: use"
    ):
        PromptFeatures(("a", "b", "c"), features, 100.0, "")


@pytest.mark.parametrize("scale", [math.nan, math.inf, 0.0, -3.0, 2e38])
def test_a_scale_whose_margins_are_not_finite_is_refused(scale):
    with pytest.raises(
        InputError,
        match=rf"logit_scale \({re.escape(str(scale))}\) must be above 0 and at most 1e\+38",
    ):
        PromptFeatures(("a",), unit(1, 2, 8), scale, "")


def test_a_text_tower_that_returns_nothing_finite_is_refused(towers):
    class Broken:
        def encode(self, texts):
            return torch.full((len(texts), 128), torch.nan)

    pairs = [PromptPair("quality", "a fine picture", "a poor picture")]
    with pytest.raises(InputError, match="text features of prompt pair 'quality' are not finite"):
        encode_prompts(replace(towers, load_text=Broken), pairs)
