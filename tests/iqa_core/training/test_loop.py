"""Tests of iqa_core/training/loop.py: the same bytes from the same seed, checkpoints, losses."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from iqa_core.prompts.file import load_prompts, save_prompts
from iqa_core.prompts.ensemble import learned_prompts
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import image_scores_f64, pair_margins
from iqa_core.tables.feature_cache import views_of
from iqa_core.training.check import agreement, held_out_margins
from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.loop import train
from iqa_core.training.state import State
from iqa_core.training.world import World, epoch_order
from tests.iqa_core.losses.cases import write_package
from tests.iqa_core.training.rows import (
    WIDTH,
    new_learner,
    settings,
    written,
)


def write_prompts(path, towers, data, chosen, seed=0):
    learner = new_learner(towers, seed)
    state = train(learner, towers.text, data, chosen)
    training = {"settings": dataclasses.asdict(chosen)}
    metrics = {"student": {"srcc": state.best}}
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
        assert (state.best, state.best_step) == (whole.best, whole.best_step)
        curve = [record["loss"] for record in state.history]
        assert curve[1:] == [record["loss"] for record in whole.history][1:]


def test_training_improves_on_its_start_and_keeps_the_best(towers, data):
    learner = new_learner(towers)
    with torch.no_grad():
        learner.context.normal_(generator=torch.Generator().manual_seed(4))  # a poor start
    state = train(learner, towers.text, data, settings(towers, steps=200, learning_rate=0.05))
    first, best = state.history[0], max(state.history, key=lambda record: record["agreement"])
    assert math.isnan(first["loss"])
    assert best["agreement"] > first["agreement"] + 0.02
    assert (state.best, state.best_step) == (best["agreement"], best["step"])
    assert torch.equal(learner.context, state.best_context)
    features, targets = data.held_out()[:2]
    margins = held_out_margins(learner, towers.text, features, towers.logit_scale)
    assert agreement(margins, targets, per_pair=False) == pytest.approx(state.best, abs=1e-9)


@pytest.mark.slow
def test_a_column_can_be_learned(cache, towers, prompts, tmp_path):
    column = written(cache, str(tmp_path), prompts, teacher="column:mos", holdout=0.2)
    learner = new_learner(towers)
    chosen = settings(towers, loss="plcc", steps=400, learning_rate=0.02)
    state = train(learner, towers.text, column, chosen)
    assert state.best > 0.9


@pytest.mark.parametrize("loss", ["fidelity", "listnet", "approx-ndcg", "soft-spearman", "upl"])
def test_every_kind_of_loss_trains(towers, cache, prompts, tmp_path, loss):
    pairs = written(cache, str(tmp_path), prompts, teacher="per-pair")
    state = train(
        new_learner(towers, context="per-side"),
        towers.text,
        pairs,
        settings(towers, loss=loss, steps=10, lists="local"),
    )
    assert state.ended == "steps"
    assert all(math.isfinite(record["agreement"]) for record in state.history)


def right_share(learner, towers, cache):
    """How far the learner's scores of the held-in views agree with their known order."""
    table = pa.concat_tables(cache.tables())
    views, levels = views_of(table)
    margins = held_out_margins(learner, towers.text, views.reshape(-1, WIDTH), towers.logit_scale)
    return float(known_order_agreement(image_scores_f64(margins), torch.from_numpy(levels.ravel())))


def test_a_wrong_teacher_is_not_followed_where_the_order_is_known(viewed, towers, tmp_path):
    pairs = [PromptPair("turned", "Bad photo.", "Good photo.")]
    prompts = encode_prompts(towers, pairs)
    data = written(viewed, str(tmp_path / "d"), prompts, holdout=0.2)
    assert (data.views, data.trust) == (3, (0.0,))
    learner = PromptLearner(towers.text, pairs, context_length=4, seed=0)
    train(learner, towers.text, data, settings(towers, steps=80, learning_rate=0.02))
    assert right_share(learner, towers, viewed) > 0.5
    # Without the known order, the student is as wrong as its teacher.
    alone = PromptLearner(towers.text, pairs, context_length=4, seed=0)
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
    features, targets = (torch.tensor(np.array(part)) for part in data.shard(0, 1)[:2])
    rows = np.sort(epoch_order(data.rows, chosen.seed, 0, World())[:32])
    learner = new_learner(towers)
    margins = pair_margins(learner(towers.text), features[rows], towers.logit_scale)
    centred = margins - margins.mean(0)
    first = (centred - 10 * targets[rows] - 0.5).square().mean()
    chosen = dataclasses.replace(chosen, steps=1)
    (_, record) = train(learner, towers.text, data, chosen).history
    assert record["loss"] == pytest.approx(first.item(), rel=1e-5)
