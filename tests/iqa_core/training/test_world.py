"""Tests of iqa_core/training/world.py: the same gradient on any number of workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from iqa_core.errors import InputError
from iqa_core.losses.table import make_loss
from iqa_core.prompts.learner import PromptLearner
from iqa_core.scoring.margins import image_scores_f64, pair_margins, pair_scores_f64
from iqa_core.scoring.margins import margins as scoring_margins
from iqa_core.training.world import World, epoch_order, list_loss, steps_per_epoch
from tests.iqa_core.training.rows import (
    PAIRS,
    WIDTH,
    settings,
)

ROOT = Path(__file__).parents[3]

WORKER = """
import sys, torch, torch.distributed as dist
from iqa_core.prompts.learner import PromptLearner
from iqa_core.losses.table import make_loss
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.clip.load import load_towers
from iqa_core.scoring.margins import pair_margins
from iqa_core.training.world import World, list_loss, sum_gradients

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
tower = load_towers("tiny").text
rows = torch.load(f"{folder}/rows.pt", weights_only=True)
found = {}
for size in (2, 4):
    if rank >= size:
        continue
    dist.init_process_group("gloo", f"file://{folder}/init{size}", rank=rank, world_size=size)
    world = World.current()
    each = len(rows["features"]) // size
    mine = slice(rank * each, (rank + 1) * each)
    for lists in ("global", "local"):
        for loss in ("listmle", "ranknet", "plcc"):
            for target in ("ensemble", "per-pair"):
                learner = PromptLearner(tower, NAMED_PAIRS["pyiqa"][:3], init="a photo of it")
                margins = pair_margins(learner(tower), rows["features"][mine], 7.0)
                part = list_loss(margins, rows[target][mine], make_loss(loss), lists, world)
                part.backward()
                sum_gradients(learner.context, world)
                value = part.detach().clone()
                if lists == "local":
                    dist.all_reduce(value)
                found[f"{size} {lists} {loss} {target}"] = (value, learner.context.grad)
    dist.barrier()
    dist.destroy_process_group()
torch.save(found, f"{folder}/found{rank}.pt")
"""


@pytest.fixture(scope="module")
def one_list(prompts):
    """64 images: features in half precision, and targets of both kinds."""
    features = torch.nn.functional.normalize(
        torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1
    ).half()
    margins = torch.from_numpy(scoring_margins(features.numpy(), prompts))
    targets = {"ensemble": image_scores_f64(margins), "per-pair": pair_scores_f64(margins)}
    return {"features": features, **targets}


@pytest.fixture(scope="module")
def found(one_list, tmp_path_factory):
    """What each of four processes found, in groups of two and of four."""
    folder = tmp_path_factory.mktemp("workers")
    torch.save(one_list, folder / "rows.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(rank)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    for process in processes:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in range(4)]


def alone(towers, one_list, lists, loss, target):
    """Return loss and gradient of the mean over lists, in one process and without gathers."""
    learner = PromptLearner(towers.text, PAIRS, init="a photo of it")
    margins = pair_margins(learner(towers.text), one_list["features"], 7.0)
    targets = one_list[target].expand(margins.shape)
    shape = (lists, 64 // lists, len(PAIRS))
    in_lists = (values.reshape(shape).mT.contiguous() for values in (margins, targets))
    each = make_loss(loss)(*in_lists)
    each.mean().backward()
    return each.mean().detach(), learner.context.grad


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ensemble", "per-pair"])
@pytest.mark.parametrize("loss", ["listmle", "ranknet", "plcc"])
@pytest.mark.parametrize("lists", ["global", "local"])
@pytest.mark.parametrize("size", [2, 4])
def test_workers_have_the_gradient_of_one_process(
    towers, one_list, found, size, lists, loss, target
):
    number = 1 if lists == "global" else size
    value, gradient = alone(towers, one_list, number, loss, target)
    assert gradient.abs().max() > 1e-4
    for rank in range(size):
        theirs = found[rank][f"{size} {lists} {loss} {target}"]
        torch.testing.assert_close(theirs[0].to(value), value, rtol=1e-5, atol=0)
        distance = (theirs[1] - gradient).norm() / gradient.norm()
        assert distance < 1e-5


@pytest.mark.parametrize("lists", ["global", "local"])
def test_one_worker_is_no_special_case(towers, one_list, lists):
    learner = PromptLearner(towers.text, PAIRS, init="a photo of it")
    margins = pair_margins(learner(towers.text), one_list["features"], 7.0)
    value = list_loss(margins, one_list["ensemble"], make_loss("listmle"), lists, World())
    value.backward()
    expected, gradient = alone(towers, one_list, 1, "listmle", "ensemble")
    assert torch.equal(value, expected)
    torch.testing.assert_close(learner.context.grad, gradient)


def test_the_order_of_an_epoch():
    first = epoch_order(100, 0, 0, World(0, 2))
    assert sorted(first) == list(range(100))
    assert np.array_equal(first, epoch_order(100, 0, 0, World(0, 2)))
    for other in ((1, 0, World(0, 2)), (0, 1, World(0, 2)), (0, 0, World(1, 2)), (0, 0, World())):
        assert not np.array_equal(first, epoch_order(100, *other))


def test_steps_of_an_epoch(towers):
    assert steps_per_epoch(129, settings(towers), World()) == 4
    assert steps_per_epoch(129, settings(towers), World(1, 2)) == 4
    assert steps_per_epoch(129, settings(towers, lists="local"), World(1, 2)) == 2
    with pytest.raises(
        InputError,
        match=r"list_size \(32\) must be at most 31, the number of training rows: lower it",
    ):
        steps_per_epoch(31, settings(towers), World())
    with pytest.raises(
        InputError,
        match=r"list_size \(32\) must be at most 31, one worker's share of the 63 training",
    ):
        steps_per_epoch(63, settings(towers, lists="local"), World(0, 2))
    with pytest.raises(
        InputError,
        match=r"list_size \(32\) must be a multiple of the 5 workers that share a list: use 30",
    ):
        steps_per_epoch(1000, settings(towers), World(0, 5))
