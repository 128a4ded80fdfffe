"""Learning prompts from cached features, on one process or on many that share each list.

    rows of a shard -> margins of my part of a list -> gathered into the list -> ranking loss
                    -> gradient of the context, summed over workers -> step

The towers are frozen, so no image is read: a step is one pass of the text tower over the prompts and
one matrix product.

All randomness is a function of (seed, epoch, worker, workers), and the learning rate of the step
alone. So a killed run continues from its last :class:`iqa_core.training.state.State` exactly as if it
had not been interrupted.

Source: Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022,
https://arxiv.org/abs/2109.01134. What differs: rankings instead of classes, no labels by default,
early stopping.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from iqa_core.prompts.learner import PromptLearner
from iqa_core.scoring.margins import pair_margins
from iqa_core.training.check import HeldOutCheck
from iqa_core.training.data import TrainingData
from iqa_core.training.known_order import order_loss
from iqa_core.training.settings import Settings, learning_rate
from iqa_core.training.state import State
from iqa_core.training.world import (
    World,
    epoch_order,
    list_loss,
    steps_per_epoch,
    sum_gradients,
)

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ContextTextEncoder

__all__ = ["train"]

_MOMENTUM = 0.9


def train(
    learner: PromptLearner,
    tower: ContextTextEncoder,
    data: TrainingData,
    settings: Settings,
    *,
    state: State | None = None,
    on_check: Callable[[State], None] | None = None,
) -> State:
    """Train the context of a prompt learner; all workers call this with equal arguments.

    Args:
        learner: Its context is trained in place; afterwards it has the best one.
        tower: Its text tower, on the same device.
        data: The rows.
        settings: How to train.
        state: The state to continue from; None starts.
        on_check: Called by every worker after each check on the held-out rows, including the one
            before the first step: write checkpoints there.

    Returns:
        The final state.

    Raises:
        InputError: If the rows don't fill one step.
    """
    world = World.current()
    per_epoch = steps_per_epoch(data.rows, settings, world)
    optimizer = _optimizer(learner, settings)
    check = HeldOutCheck(learner, tower, data, settings, world)
    if state is None:
        if world.size > 1:
            dist.broadcast(learner.context.data, src=0)
        start = learner.context.detach().cpu().clone()
        state = State(0, start, {}, -math.inf, 0, start)
        check.update(state, optimizer, torch.tensor(math.nan), per_epoch)
        if on_check is not None:
            on_check(state)
    else:
        _set_context(learner, state.context)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
    lists = _lists(data, settings, world, per_epoch, state.step)
    loss_of = settings.make_loss()
    trust = torch.tensor(data.trust or (1.0,) * data.pairs, device=learner.context.device)
    total = torch.zeros((), device=learner.context.device)
    last_check = state.step
    while state.ended is None:
        features, targets, views, levels = (part.to(trust.device) for part in next(lists))
        prompts = learner(tower)
        margins = pair_margins(prompts, features, settings.logit_scale)
        loss = ranking = list_loss(margins, targets, loss_of, settings.lists, world, trust)
        if data.views and settings.order_weight:
            copies = pair_margins(prompts, views, settings.logit_scale)
            clean = torch.zeros(len(margins), dtype=levels.dtype, device=levels.device)
            known = order_loss(torch.cat([margins, copies]), torch.cat([clean, levels])).mean()
            # Each worker's own views: their mean over workers, as for local lists.
            loss = loss + settings.order_weight * known / world.size
        optimizer.zero_grad()
        loss.backward()
        sum_gradients(learner.context, world)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings)
        optimizer.step()
        total += ranking.detach()
        state.step += 1
        if state.step % settings.checkpoint_steps == 0 or state.step == settings.steps:
            check.update(state, optimizer, total / (state.step - last_check), per_epoch)
            total.zero_()
            last_check = state.step
            if on_check is not None:
                on_check(state)
    _set_context(learner, state.best_context)
    return state


def _set_context(learner: PromptLearner, context: torch.Tensor) -> None:
    with torch.no_grad():
        learner.context.copy_(context)


def _optimizer(learner: PromptLearner, settings: Settings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD([learner.context], lr=rate, momentum=_MOMENTUM, weight_decay=decay)
    return torch.optim.AdamW([learner.context], lr=rate, weight_decay=decay)


def _lists(
    data: TrainingData, settings: Settings, world: World, per_epoch: int, step: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield this worker's rows of each list from a step on, endlessly.

    Yields:
        (l, D) features, (l, P) or (l, 1) targets, (l V, D) views, (l V,) levels.
    """
    shard = data.shard(world.rank, world.size)
    mine = world.rows_per_step(settings)
    epoch, first = divmod(step, per_epoch)
    while True:
        order = epoch_order(len(shard.features), settings.seed, epoch, world)
        for start in range(first * mine, per_epoch * mine, mine):
            rows = np.sort(order[start : start + mine])  # a list has no order; a disk does
            yield (
                torch.from_numpy(shard.features[rows]),
                torch.from_numpy(shard.targets[rows]),
                torch.from_numpy(shard.views[rows].reshape(-1, data.width)),
                torch.from_numpy(shard.levels[rows].ravel()),
            )
        epoch, first = epoch + 1, 0
