"""Towers out of weights: each waits until it is used, and both are as open_clip builds them."""

from __future__ import annotations

import pickle

import numpy as np
import open_clip
import pytest
import torch

from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.clip.text_tower import TextTower

PROMPTS = ["a photo", "Good photo."]


@pytest.fixture
def built(monkeypatch) -> list[TextTower]:
    """The text towers that are built."""
    towers = []
    build = TextTower.__init__

    def noting(self, *arguments):
        towers.append(self)
        build(self, *arguments)

    monkeypatch.setattr(TextTower, "__init__", noting)
    return towers


def test_the_text_tower_is_built_on_first_use_and_once(built):
    towers = load_towers("tiny")
    assert (towers.image.width, len(towers.digest), built) == (128, 64, [])
    assert towers.text is towers.text
    assert towers.load_text() is towers.text
    assert built == [towers.text]


def test_the_image_tower_is_built_on_first_use_and_once():
    towers = load_towers("tiny")
    assert towers.text.encode(PROMPTS).isfinite().all()
    assert "built" not in vars(towers.image)
    pixels = np.full((2, *towers.preprocess.size, 3), 99, np.uint8)
    features = towers.image.encode(pixels)
    assert towers.image.to_device("cpu") is towers.image.built
    copy = pickle.loads(pickle.dumps(towers.image))  # noqa: S301 - its own
    assert type(copy) is ImageTower
    assert torch.equal(copy.encode(pixels), features)


def test_a_text_tower_built_later_is_open_clips(random_clips, tmp_path):
    for name in ("small-vit", "small-rn-quickgelu"):
        clip = random_clips[name]
        torch.save(clip.state_dict(), tmp_path / "w.pt")
        towers = load_towers(f"{name}@{tmp_path / 'w.pt'}")
        tokens = open_clip.get_tokenizer(name)(PROMPTS)
        with torch.no_grad():
            expected = clip.encode_text(tokens, normalize=True)
        torch.testing.assert_close(towers.text.encode(PROMPTS), expected, rtol=0, atol=1e-6)
        state = dict(towers.text.named_parameters()) | dict(towers.image.built.named_parameters())
        assert not any(tensor.is_meta for tensor in state.values())


def test_neither_memory_nor_random_numbers_are_used_for_weights_that_are_read(monkeypatch):
    before = torch.random.get_rng_state()
    towers = load_towers("tiny")
    assert towers.text.encode(PROMPTS).isfinite().all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_digests_are_those_of_version_0_1():
    """Fingerprints and prompt files of that version hold it."""
    import json
    from pathlib import Path

    folder = Path(__file__).parents[2] / "data" / "v0.1"
    for run in ("scores", "features", "rescored"):
        fingerprint = json.loads((folder / run / "_run" / "fingerprint.json").read_text())
        assert load_towers(fingerprint["model"]).digest == fingerprint["weights"]
