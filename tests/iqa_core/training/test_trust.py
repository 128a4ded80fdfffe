"""Tests of iqa_core/training/trust.py: a teacher's trust from degraded copies."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import torch

from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import margins as scoring_margins
from iqa_core.training.trust import tower_doubt
from tests.iqa_core.training.rows import (
    written,
)


def test_trust_is_measured_for_each_pair(viewed, towers, tmp_path):
    pairs = [
        PromptPair("good", "Good photo.", "Bad photo."),
        PromptPair("turned", "Bad photo.", "Good photo."),
    ]
    prompts = encode_prompts(towers, pairs)
    each = written(viewed, str(tmp_path / "e"), prompts, holdout=0.2, teacher="per-pair")
    assert each.trust[0] > 0.25
    assert each.trust[1] == 0.0
    # In the ensemble, only the pair that is right counts.
    both = written(viewed, str(tmp_path / "b"), prompts, holdout=0.2)
    assert both.trust == (each.trust[0],) * 2
    features, targets = both.held_out()[:2]
    margins = torch.from_numpy(scoring_margins(np.array(features), prompts)).double()
    np.testing.assert_allclose(targets[:, 0], margins.sigmoid()[:, 0].numpy(), atol=1e-6)


def test_no_trust_is_asked_for_where_the_order_is_not_used(viewed, towers, tmp_path):
    pairs = [PromptPair("turned", "Bad photo.", "Good photo.")]
    prompts = encode_prompts(towers, pairs)
    data = written(viewed, str(tmp_path / "d"), prompts, holdout=0.2, weighs_teacher=False)
    assert data.trust == ()


def test_a_tower_that_knows_no_quality_is_doubted(viewed, towers, tmp_path):
    prompts = encode_prompts(towers, [PromptPair("good", "Good photo.", "Bad photo.")])
    data = written(viewed, str(tmp_path / "d"), prompts, holdout=0.2)
    turned = SimpleNamespace(encode=lambda texts: -towers.text.encode(texts))
    # Half of the pairs turned round, as random weights do.
    half = SimpleNamespace(
        encode=lambda texts: torch.cat(
            [
                towers.text.encode(pair if place % 2 else pair[::-1])
                for place, pair in enumerate(zip(texts[::2], texts[1::2], strict=True))
            ]
        )
    )
    for text in (turned, half):
        doubted = dataclasses.replace(towers, load_text=lambda text=text: text)
        found = tower_doubt(doubted, data.train_bases(), within=True)
        assert "the model's words don't know quality: of " in found


def test_words_that_are_right_by_chance_are_doubted(viewed, towers, tmp_path):
    """A tower that puts every pair of prompts the right way round, whatever its words are."""
    prompts = encode_prompts(towers, [PromptPair("good", "Good photo.", "Bad photo.")])
    data = written(viewed, str(tmp_path / "d"), prompts, holdout=0.2)
    assert tower_doubt(towers, data.train_bases(), within=True) == ""
    good, bad = torch.from_numpy(prompts.features[0])

    class Flattering:
        takes_embeddings = True
        tokenize, end_of_text = towers.text.tokenize, towers.text.end_of_text
        token_embedding = towers.text.token_embedding

        def encode(self, texts):
            return torch.stack([good, bad] * (len(texts) // 2))

        def encode_embeddings(self, embeddings, ends):
            assert len(embeddings) == len(ends)
            return self.encode(embeddings)

    doubted = dataclasses.replace(towers, load_text=Flattering)
    found = tower_doubt(doubted, data.train_bases(), within=True)
    assert found.endswith(
        "and so do 99 of 99 draws of other words in their places (1 at most is asked for)"
    )
