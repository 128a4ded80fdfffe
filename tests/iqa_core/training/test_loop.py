"""Tests of iqa_core/training/loop.py: the same bytes from the same seed, checkpoints, losses."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from iqa_core.evaluation.correlations import srcc
from iqa_core.prompts.ensemble import learned_prompts
from iqa_core.prompts.file import load_prompts, save_prompts
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import margins as scoring_margins
from iqa_core.scoring.margins import pair_margins
from iqa_core.tables.feature_cache import views_of
from iqa_core.training.check import agreement, held_out_margins, mean_scores
from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.lists import epoch_order
from iqa_core.training.loop import _about_quality, train
from iqa_core.training.state import State
from tests.iqa_core.losses.cases import write_package
from tests.iqa_core.training.rows import (
    PAIRS,
    WIDTH,
    new_learner,
    settings,
    written,
)


def write_prompts(path, towers, data, chosen, seed=0):
    learner = new_learner(towers, seed)
    state = train(learner, towers.text, data, chosen)
    training = {"settings": dataclasses.asdict(chosen)}
    metrics = {"student": {"srcc": state.history[-1]["agreement"]}}
    save_prompts(path, learned_prompts(learner, towers, training=training, metrics=metrics))
    return path.read_bytes()


def test_the_same_seed_gives_the_same_bytes(towers, data, tmp_path):
    first = write_prompts(tmp_path / "a.safetensors", towers, data, settings(towers, seed=1))
    again = write_prompts(tmp_path / "b.safetensors", towers, data, settings(towers, seed=1))
    assert first == again
    other = write_prompts(tmp_path / "c.safetensors", towers, data, settings(towers, seed=2))
    assert other != first
    assert load_prompts(tmp_path / "a.safetensors", towers).training["settings"]["seed"] == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_going_on_from_any_checkpoint_changes_nothing(towers, data, optimizer):
    chosen = settings(
        towers, optimizer=optimizer, checkpoint_steps=15
    )  # not a whole number of epochs
    saved = []
    learner = new_learner(towers)
    whole = train(
        learner, towers.text, data, chosen, on_check=lambda state: saved.append(state.to_bytes())
    )
    assert [State.from_bytes(saved_state).step for saved_state in saved] == [0, 15, 30, 40]
    for saved_state in saved:
        other = new_learner(towers, seed=9)
        state = train(other, towers.text, data, chosen, state=State.from_bytes(saved_state))
        assert torch.equal(state.context, whole.context)
        assert torch.equal(other.context, learner.context)
        curve = [record["loss"] for record in state.history]
        assert curve[1:] == [record["loss"] for record in whole.history][1:]


def test_the_last_step_is_kept(towers, data):
    learner = new_learner(towers)
    with torch.no_grad():
        learner.context.normal_(generator=torch.Generator().manual_seed(4))  # a poor start
    chosen = settings(towers, steps=200, learning_rate=0.05)
    contexts = []
    state = train(
        learner, towers.text, data, chosen, on_check=lambda state: contexts.append(state.context)
    )
    first, last = state.history[0], state.history[-1]
    assert math.isnan(first["loss"])
    assert last["agreement"] > first["agreement"] + 0.02
    assert (last["step"], state.ended) == (200, "steps")
    assert torch.equal(learner.context, contexts[-1])
    features, targets = data.held_out()
    margins = held_out_margins(learner, towers.text, features, towers.logit_scale)
    reached = agreement(margins, targets, per_pair=False)
    assert reached == pytest.approx(last["agreement"], abs=1e-9)


def test_several_contexts_are_learned_as_each_alone(towers, viewed, tmp_path):
    """In one pass of the tower, each from its own seed and its own lists."""
    prompts = encode_prompts(towers, PAIRS)
    data = written(viewed, str(tmp_path), prompts, holdout=0.2)
    chosen = settings(towers, steps=5, checkpoint_steps=5, optimizer="sgd", meaning=0.5)
    both = new_learner(towers, contexts=2)
    train(both, towers.text, data, chosen)
    for seed in range(2):
        alone = new_learner(towers, seed)
        train(alone, towers.text, data, dataclasses.replace(chosen, seed=seed))
        torch.testing.assert_close(both.context[seed], alone.context[0], rtol=0, atol=1e-4)


def test_a_pair_keeps_its_meaning(towers, viewed, tmp_path):
    """A pair that is turned round beside one that is right keeps its own order, where that is asked for."""
    pairs = [
        PromptPair("good", "Good photo.", "Bad photo."),
        PromptPair("turned", "a bad photo", "a good photo"),
    ]
    prompts = encode_prompts(towers, pairs)
    data = written(viewed, str(tmp_path), prompts, holdout=0.2)
    assert data.pair_trust[0] > 0.25 > data.pair_trust[1]
    features = data.held_out().features
    fixed = scoring_margins(features, prompts)
    kept = []
    for meaning in (0.0, 0.5):
        learner = new_learner(towers, pairs=pairs)
        chosen = settings(towers, steps=80, learning_rate=0.02, meaning=meaning)
        train(learner, towers.text, data, chosen)
        margins = held_out_margins(learner, towers.text, features, towers.logit_scale)
        kept.append(srcc(margins[:, 0, 1].numpy(), fixed[:, 1]))
    assert kept[1] > kept[0] + 0.1


def test_all_pairs_learn_where_none_is_trusted():
    assert _about_quality((0.9, 0.45, 0.0), 3).tolist() == pytest.approx([1, 0.5, 0])
    assert _about_quality((0.1, 0.0), 2).tolist() == [1, 1]
    assert _about_quality((), 2).tolist() == [1, 1]


@pytest.mark.slow
def test_a_column_can_be_learned(cache, towers, prompts, tmp_path):
    column = written(cache, str(tmp_path), prompts, teacher="column:mos", holdout=0.2)
    learner = new_learner(towers)
    chosen = settings(towers, loss="plcc", steps=400, learning_rate=0.02)
    state = train(learner, towers.text, column, chosen)
    assert state.history[-1]["agreement"] > 0.9


@pytest.mark.parametrize("loss", ["fidelity", "listnet", "approx-ndcg", "soft-spearman", "upl"])
def test_every_kind_of_loss_trains(towers, cache, prompts, tmp_path, loss):
    pairs = written(cache, str(tmp_path), prompts, teacher="per-pair")
    state = train(
        new_learner(towers, context="per-side"),
        towers.text,
        pairs,
        settings(towers, loss=loss, steps=10),
    )
    assert state.ended == "steps"
    assert all(math.isfinite(record["agreement"]) for record in state.history)


def right_share(learner, towers, cache):
    """How far the learner's scores of the held-in views agree with their known order."""
    table = pa.concat_tables(cache.tables())
    views, levels = views_of(table)
    margins = held_out_margins(learner, towers.text, views.reshape(-1, WIDTH), towers.logit_scale)
    scores = torch.from_numpy(mean_scores(margins))[:, None]
    return float(known_order_agreement(scores, torch.from_numpy(levels.ravel())))


def test_a_wrong_teacher_is_not_followed_where_the_order_is_known(viewed, towers, tmp_path):
    pairs = [PromptPair("turned", "Bad photo.", "Good photo.")]
    prompts = encode_prompts(towers, pairs)
    data = written(viewed, str(tmp_path / "d"), prompts, holdout=0.2)
    assert (data.views, data.trust) == (3, (0.0,))
    learner = new_learner(towers, pairs=pairs)
    train(learner, towers.text, data, settings(towers, steps=80, learning_rate=0.02))
    assert right_share(learner, towers, viewed) > 0.5
    # Without the known order, the student is as wrong as its teacher.
    alone = new_learner(towers, pairs=pairs)
    plain = dataclasses.replace(data, trust=(1.0,))
    chosen = settings(towers, steps=80, learning_rate=0.02, order_weight=0.0)
    train(alone, towers.text, plain, chosen)
    assert right_share(alone, towers, viewed) < 0


EXTERNAL = """
import torch

def squared(margins, targets, mask=None, *, shift=0.0):
    squares = (margins - margins.mean(-1, keepdim=True) - 10 * targets - shift).square()
    return squares.mean(-1) if mask is None else (squares * mask).mean(-1)
"""


@pytest.fixture
def external(tmp_path, monkeypatch):
    write_package(tmp_path, "other_losses", EXTERNAL, squared="squared")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("other_losses", None)


def test_a_loss_of_another_package_trains(external, towers, data):
    learner = new_learner(towers)
    start = learner.context.detach().clone()
    chosen = settings(towers, loss="squared", loss_options={"shift": 0.5}, steps=2)
    state = train(learner, towers.text, data, chosen)
    assert (state.step, state.ended) == (2, "steps")
    assert not torch.equal(state.context, start)
    features, targets = (torch.tensor(np.array(part)) for part in data.train())
    rows = np.sort(epoch_order(data.rows, chosen.seed, 0)[:32])
    learner = new_learner(towers)
    margins = pair_margins(learner(towers.text)[0], features[rows], towers.logit_scale)
    centred = margins - margins.mean(0)
    first = (centred - 10 * targets[rows] - 0.5).square().mean()
    chosen = dataclasses.replace(chosen, steps=1)
    (_, record) = train(learner, towers.text, data, chosen).history
    assert record["loss"] == pytest.approx(first.item(), rel=1e-5)
