"""Tests of iqa_core/prompts/ensemble.py: several contexts in one pass, and in one file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.prompts.ensemble import PromptEnsemble, learned_prompts
from iqa_core.prompts.file import load_prompts, save_prompts
from iqa_core.prompts.learned import LearnedPrompts
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.scoring.margins import score_features

PAIRS = NAMED_PAIRS["pyiqa"]


@pytest.fixture(scope="module")
def towers():
    return load_towers("tiny")


def learners(towers, count=5, **options):
    return [PromptLearner(towers.text, PAIRS, seed=seed, **options) for seed in range(count)]


@pytest.fixture(scope="module")
def images():
    rows = np.random.default_rng(0).normal(size=(500, 128))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("position", ["front", "middle"])
@pytest.mark.parametrize("context", ["shared", "per-side"])
def test_each_context_has_the_features_of_its_learner(towers, position, context):
    each = learners(towers, 3, position=position, context=context)
    found = PromptEnsemble(each)(towers.text)
    assert found.shape == (3, 5, 2, 128)
    for features, learner in zip(found, each, strict=True):
        torch.testing.assert_close(features, learner(towers.text), rtol=0, atol=2e-6)


def test_a_part_runs_its_prompts_and_shares_the_parameter(towers):
    whole = PromptEnsemble(learners(towers, 2))
    parts = [whole.part(rank, 3) for rank in range(3)]
    found = torch.cat([part.encode(towers.text) for part in parts])
    torch.testing.assert_close(found, whole(towers.text).flatten(0, 1), rtol=0, atol=2e-6)
    assert all(part.context is whole.context for part in parts)
    assert [unit for part in parts for unit in part.units] == whole.units
    with pytest.raises(ValueError, match="this runs 3 pairs of prompts, not all"):
        parts[0](towers.text)
    with pytest.raises(ValueError, match="part 0 of 11 of 10 pairs of prompts"):
        whole.part(0, 11)


def test_learners_of_one_kind_only(towers):
    with pytest.raises(ValueError, match="2 learners of 2 kinds"):
        PromptEnsemble([*learners(towers, 1), *learners(towers, 1, position="end")])
    with pytest.raises(ValueError, match="0 learners of 0 kinds"):
        PromptEnsemble([])


def test_a_file_of_five_contexts_scores_as_the_mean_of_five_files(towers, images, tmp_path):
    each = learners(towers)
    for number, learner in enumerate(each):
        save_prompts(tmp_path / f"{number}.safetensors", learned_prompts(learner, towers))
    save_prompts(tmp_path / "all.safetensors", learned_prompts(PromptEnsemble(each), towers))
    alone = [load_prompts(tmp_path / f"{n}.safetensors").features for n in range(5)]
    together = load_prompts(tmp_path / "all.safetensors")
    assert together.contexts == 5
    expected = [
        np.mean(parts, axis=0)
        for parts in zip(*(score_features(images, p) for p in alone), strict=True)
    ]
    for found, mean in zip(score_features(images, together.features), expected, strict=True):
        np.testing.assert_allclose(found, mean, rtol=0, atol=1e-6)
    assert not np.allclose(score_features(images, alone[0])[2], expected[2], atol=1e-6)


def test_weights_of_pairs_are_kept_and_used(towers, images, tmp_path):
    weights = np.array([0.5, 0.25, 0.25, 0, 0], np.float32)
    prompts = learned_prompts(PromptEnsemble(learners(towers, 2)), towers, weights=weights)
    save_prompts(tmp_path / "w.safetensors", prompts)
    loaded = load_prompts(tmp_path / "w.safetensors", towers)
    np.testing.assert_array_equal(loaded.weights, weights)
    _, scores, score = score_features(images, loaded.features)
    np.testing.assert_allclose(score, scores @ weights, rtol=0, atol=1e-6)
    plain = learned_prompts(PromptEnsemble(learners(towers, 2)), towers)
    assert plain.features.digest != loaded.features.digest


@pytest.mark.parametrize(
    "weights", [[0.5, 0.5], [1, 0.5, 0, 0, -0.5], [1, 1, 1, 1, 1], [np.nan] * 5]
)
def test_unusable_weights_are_refused(towers, weights):
    with pytest.raises(InputError, match="are not 5 numbers from 0 on with the sum 1"):
        learned_prompts(learners(towers, 1)[0], towers, weights=np.array(weights, np.float32))


def test_contexts_and_features_belong_together(towers):
    one = learned_prompts(learners(towers, 1)[0], towers)
    with pytest.raises(InputError, match="2 contexts have features of 1"):
        LearnedPrompts(**{**vars(one), "context": np.repeat(one.context, 2, axis=0)})
