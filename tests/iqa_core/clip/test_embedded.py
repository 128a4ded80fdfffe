"""Tests of iqa_core/clip/embedded.py: `tiny` without open_clip equals `tiny` as it is loaded."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from iqa_core.clip import embedded as module
from iqa_core.clip.embedded import EmbeddedText, EmbeddedTower, lightest_towers
from iqa_core.clip.facts import ModelFacts
from iqa_core.clip.load import load_towers
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.scoring.features import encode_prompts

ROOT = Path(__file__).parents[3]

#: What a driver does with `tiny`, and the packages that it must not import for that.
DRIVER = """
import sys
from iqa_core.clip.embedded import lightest_towers
from iqa_core.prompts.pairs import load_pairs
from iqa_core.scoring.features import encode_prompts
import jobs.scoring.actor, jobs.scoring.stages, jobs.scoring.run
towers = lightest_towers("tiny", "model")
assert encode_prompts(towers, load_pairs("quality")).features.shape == (10, 2, 128)
print(sorted({"torch", "open_clip", "torchvision"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def loaded():
    return load_towers("tiny")


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_the_tower_equals_the_loaded_one(resolution):
    size = (224, 224) if resolution == "model" else (150, 97)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    tower = pickle.loads(pickle.dumps(lightest_towers("tiny", resolution).image))  # noqa: S301
    expected = load_towers("tiny", resolution).image.encode(pixels)
    assert torch.equal(tower.to_device("cpu", "fp32").encode(pixels), expected)
    assert torch.equal(tower.encode(pixels), expected)


def test_its_facts_are_those_of_the_loaded_one(loaded):
    assert ModelFacts.of(lightest_towers("tiny", "model")) == ModelFacts.of(loaded)


def test_pickled_it_holds_no_weights():
    tower = lightest_towers("tiny", "model").image
    tower.to_device("cpu")
    assert len(pickle.dumps(tower)) < 2000


def test_other_weights_on_a_node_are_refused(loaded):
    facts = replace(ModelFacts.of(loaded), digest="0" * 64)
    tower = EmbeddedTower(facts, "model")
    with pytest.raises(RuntimeError, match="install the same version on all nodes"):
        tower.to_device("cpu")


@pytest.mark.parametrize("name", NAMED_PAIRS)
def test_the_features_of_named_prompts_are_the_text_tower_s(loaded, name):
    texts = [side for pair in NAMED_PAIRS[name] for side in (pair.positive, pair.negative)]
    stored = EmbeddedText(loaded.digest).encode_as_array(texts)
    np.testing.assert_allclose(stored, loaded.text.encode(texts).numpy(), atol=2e-6)


def test_features_of_other_weights_are_not_taken(loaded, monkeypatch):
    monkeypatch.setattr(
        module, "_prompts", lambda: ("0" * 64, {"Good photo.": 0}, np.zeros((1, 128)))
    )
    found = EmbeddedText(loaded.digest).encode_as_array(["Good photo."])
    np.testing.assert_array_equal(found, loaded.text.encode(["Good photo."]).numpy())


def test_other_prompts_go_through_the_text_tower(loaded):
    pairs = [PromptPair("own", "a fine picture", "a poor picture")]
    light = encode_prompts(lightest_towers("tiny", "model"), pairs)
    np.testing.assert_array_equal(light.features, encode_prompts(loaded, pairs).features)


def test_a_driver_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
