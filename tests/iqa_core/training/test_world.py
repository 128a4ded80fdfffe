"""Tests of iqa_core/training/world.py: the same gradient on any number of workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iqa_core.errors import InputError
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.training.lists import Lists
from iqa_core.training.loop import Objective
from iqa_core.training.world import World, check_workers
from tests.iqa_core.training.rows import PAIRS, new_learner, settings, written

ROOT = Path(__file__).parents[3]

WORKER = """
import sys, torch, torch.distributed as dist
from iqa_core.clip.load import load_towers
from iqa_core.training.data import TrainingData
from iqa_core.training.loop import train
from tests.iqa_core.training.rows import new_learner, settings

folder, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
towers = load_towers("tiny")
dist.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=size)
learner = new_learner(towers, contexts=2, init="a photo of it", context_length=None)
chosen = settings(towers, steps=3, checkpoint_steps=3, optimizer="sgd", meaning=0.5)
state = train(learner, towers.text, TrainingData.open(f"{folder}/data"), chosen)
torch.save((learner.context.detach(), state.history[-1]["loss"]), f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def copied(viewed, towers, tmp_path_factory):
    """Rows and copies, and the contexts that one process learns from them in three steps."""
    folder = tmp_path_factory.mktemp("workers")
    data = written(viewed, str(folder / "data"), encode_prompts(towers, PAIRS), holdout=0.2)
    return folder, data


@pytest.mark.parametrize("size", [2, 4])
def test_parts_of_the_prompts_have_the_gradient_of_all(towers, copied, size):
    _, data = copied
    chosen = settings(towers, meaning=0.5)
    lists = Lists(data, chosen)
    whole = new_learner(towers, contexts=2, init="a photo of it", context_length=None)
    batches = next(lists.batches([0, 1], 0))
    loss = Objective(whole, towers.text, data, chosen)(batches)
    (expected,) = torch.autograd.grad(loss, whole.context)
    assert expected.abs().max() > 1e-4
    total, gradient = 0.0, torch.zeros_like(expected)
    for rank in range(size):
        part = Objective(whole.part(rank, size), towers.text, data, chosen)
        value = part({context: batches[context] for context in part.contexts})
        gradient += torch.autograd.grad(value, whole.context)[0]
        total += float(value.detach())
    assert total == pytest.approx(float(loss.detach()), rel=1e-5)
    assert (gradient - expected).norm() / expected.norm() < 1e-5


@pytest.mark.slow
def test_two_processes_learn_what_one_does(towers, copied):
    from iqa_core.training.loop import train

    folder, data = copied
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(rank), "2"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    alone = new_learner(towers, contexts=2, init="a photo of it", context_length=None)
    chosen = settings(towers, steps=3, checkpoint_steps=3, optimizer="sgd", meaning=0.5)
    state = train(alone, towers.text, data, chosen)
    for rank in range(2):
        context, loss = torch.load(folder / f"found{rank}.pt", weights_only=True)
        torch.testing.assert_close(context, alone.context.detach(), rtol=0, atol=1e-6)
        assert loss == pytest.approx(state.history[-1]["loss"], rel=1e-5)


def test_this_process_is_the_only_worker():
    assert World.current() == World(0, 1)


def test_more_workers_than_prompts_are_refused():
    check_workers(6, 2, 3)
    with pytest.raises(InputError) as raised:
        check_workers(7, 2, 3)
    assert raised.value.on_command_line() == (
        "--num-workers 7 must be at most 6, as 2 contexts of 3 prompt pairs are shared: use fewer workers"
    )


def test_a_pair_of_its_own_for_each_worker(towers):
    learner = new_learner(towers, pairs=[PromptPair("a", "Good photo.", "Bad photo.")], contexts=3)
    units = [learner.part(rank, 2).units for rank in range(2)]
    assert units == [[(0, 0)], [(1, 0), (2, 0)]]
