"""Tests of iqa_core/training/outcome.py: what a training came to, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image

from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING, VIEW_LEVELS, VIEWS
from iqa_core.images.decode import prepare_image
from iqa_core.images.degrade import degraded_views
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.tables.feature_cache import feature_column
from iqa_core.training.loop import train
from iqa_core.training.outcome import conclude_training
from tests.iqa_core.training.rows import PAIRS, new_learner, settings, write_cache, written

TURNED = PromptPair("turned", "Bad photo.", "Good photo.")


def test_prompts_that_were_wrong_are_learned_and_written(viewed, towers, tmp_path):
    prompts = encode_prompts(towers, [TURNED])
    data = written(viewed, str(tmp_path), prompts, holdout=0.3)
    learner = new_learner(towers, pairs=[TURNED], contexts=2)
    state = train(learner, towers.text, data, settings(towers, steps=80, learning_rate=0.02))
    outcome = conclude_training(learner, towers, data, prompts, history=state.history)
    assert outcome.evidence.fixed.high < 0 < outcome.evidence.learned.low
    assert len(outcome.evidence.each) == 2
    assert outcome.agreements["known order"][1] > 0.3
    assert outcome.is_better == (not outcome.doubt)  # which stands on the tower's other words
    assert not [finding for finding in outcome.findings if finding.is_serious]
    assert outcome.each.shape == (2, data.held_out_rows)
    np.testing.assert_allclose(outcome.learned, outcome.each.mean(axis=0), atol=1e-6)


def test_pair_weights_leave_out_a_pair_that_is_wrong(viewed, towers, tmp_path):
    pairs = [PromptPair("good", "Good photo.", "Bad photo."), TURNED]
    prompts = encode_prompts(towers, pairs)
    data = written(viewed, str(tmp_path), prompts, holdout=0.3)
    plain = new_learner(towers, pairs=pairs, context_length=0)
    outcome = conclude_training(plain, towers, data, prompts, weigh_pairs=True)
    assert outcome.weights.tolist() == [1, 0]
    assert outcome.evidence.difference.low > 0
    assert not outcome.findings


def test_a_column_of_opinions_is_the_evidence_where_it_is_the_teacher(
    cache, towers, prompts, tmp_path
):
    data = written(cache, str(tmp_path), prompts, teacher="column:mos", holdout=0.3)
    outcome = conclude_training(new_learner(towers), towers, data, prompts)
    assert outcome.evidence.measure == "srcc mos"
    assert set(outcome.agreements) == {"srcc column:mos"}


def test_without_copies_nothing_is_shown(towers, data, prompts):
    outcome = conclude_training(new_learner(towers), towers, data, prompts)
    assert outcome.evidence is None
    assert not outcome.is_better
    assert "nothing here shows whether the learned prompts are better" in outcome.reason


def keeps_the_fixed_prompts(photos, towers, folder, steps=40):
    """Train on copies of photographs whose order can be learned, as features follow blur and noise."""
    pixels, levels = [], []
    for number in range(60):
        photo = list(photos.values())[number % len(photos)]
        seen = prepare_image(Image.fromarray(photo), towers.preprocess).pixels
        views, strengths = degraded_views(np.roll(seen, 7 * number, axis=1), 3, str(number))
        pixels += [seen, *views]
        levels.append(strengths)
    parts = [towers.image.encode(np.stack(pixels[i : i + 40])) for i in range(0, len(pixels), 40)]
    features = torch.cat(parts).numpy().reshape(60, 4, -1)
    table = pa.table(
        {
            "manifest_file": ["m.parquet"] * 60,
            "manifest_row": pa.array(range(60), pa.int64()),
            "status": ["ok"] * 60,
            EMBEDDING: feature_column(features[:, 0]),
            VIEWS: feature_column(features[:, 1:].reshape(60, -1)),
            VIEW_LEVELS: pa.array(levels, pa.list_(pa.int8(), 3)),
        }
    )
    prompts = encode_prompts(towers, PAIRS)
    data = written(write_cache(folder / "f", table), str(folder / "d"), prompts, holdout=0.3)
    learner = new_learner(towers)
    chosen = settings(towers, steps=steps, list_size=16, learning_rate=0.02)
    state = train(learner, towers.text, data, chosen)
    outcome = conclude_training(learner, towers, data, prompts, history=state.history)
    assert "the model's words don't know quality" in outcome.doubt
    assert not outcome.is_better
    json.dumps([outcome.reason, outcome.doubt])


@pytest.mark.parametrize("seed", [0, 1])
def test_on_random_weights_the_fixed_prompts_are_kept(photos, tmp_path, seed):
    torch.manual_seed(seed)
    towers = load_towers("tiny")
    text = towers.text
    for module in [*towers.image.built.modules(), *text.modules()]:
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    keeps_the_fixed_prompts(photos, replace(towers, load_text=lambda: text), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["RN50", "ViT-B-32"])
def test_on_random_weights_of_the_usual_models_too(photos, tmp_path, model):
    torch.manual_seed(0)
    torch.save(open_clip.create_model(model).state_dict(), tmp_path / "w.pt")
    towers = load_towers(f"{model}@{tmp_path / 'w.pt'}")
    keeps_the_fixed_prompts(photos, towers, tmp_path, steps=10)
