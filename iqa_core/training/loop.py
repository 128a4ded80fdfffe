"""Learning prompts from cached features, on one process or on many that share the prompts.

    my prompts -> margins of the list and of degraded copies -> ranking loss + known order + own order
               -> gradient of the contexts, summed over workers -> step

The towers are frozen, so no image is read: a step is one pass of the text tower over the prompts and
a few matrix products.

The last step is kept. To choose a step by what can be measured without labels is to choose by agreement
with a teacher, which is highest before anything was learned.

Source: Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022,
https://arxiv.org/abs/2109.01134. What differs: rankings instead of classes, no labels by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from iqa_core.losses.pseudo_labels import pseudo_label_loss
from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.prompts.learner import PromptLearner
from iqa_core.scoring.margins import pair_margins
from iqa_core.training.check import HeldOutCheck
from iqa_core.training.known_order import order_loss
from iqa_core.training.lists import Batch, Lists
from iqa_core.training.settings import Settings, learning_rate
from iqa_core.training.state import State
from iqa_core.training.world import World, check_workers, sum_over_workers

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ContextTextEncoder
    from iqa_core.losses.table import Loss
    from iqa_core.training.data import TrainingData

__all__ = ["Objective", "train"]

_MOMENTUM = 0.9
_TRUSTED = 0.25  # a pair whose agreement with the known order is 0.5


def train(
    learner: PromptEnsemble | PromptLearner,
    tower: ContextTextEncoder,
    data: TrainingData,
    settings: Settings,
    *,
    state: State | None = None,
    on_check: Callable[[State], None] | None = None,
) -> State:
    """Train the contexts of an ensemble; all workers call this with equal arguments.

    Args:
        learner: Its contexts are trained in place. A single learner is an ensemble of one.
        tower: Its text tower, on the same device.
        data: The rows.
        settings: How to train.
        state: The state to continue from; None starts.
        on_check: Called by every worker after each check on the held-out rows, including the one
            before the first step: write checkpoints there.

    Returns:
        The final state.

    Raises:
        InputError: If the rows don't fill one step, or there are more workers than prompts.
    """
    world = World.current()
    ensemble = learner if isinstance(learner, PromptEnsemble) else PromptEnsemble([learner])
    check_workers(world.size, ensemble.contexts, len(ensemble.pairs))
    mine = ensemble.part(world.rank, world.size)
    lists = Lists(data, settings)
    optimizer = _optimizer(ensemble, settings)
    check = HeldOutCheck(ensemble, tower, data, settings, world)
    if state is None:
        if world.size > 1:
            dist.broadcast(ensemble.context.data, src=0)
        state = State(0, ensemble.context.detach().cpu().clone(), {})
        check.update(state, optimizer, torch.tensor(math.nan), lists.per_epoch)
        if on_check is not None:
            on_check(state)
    else:
        _set_context(ensemble, state.context)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
    objective = Objective(mine, tower, data, settings, has_labels=lists.has_labels)
    total = torch.zeros((), device=ensemble.context.device)
    last_check = state.step
    batches = lists.batches(objective.contexts, state.step)
    while state.ended is None:
        loss = objective(next(batches))
        optimizer.zero_grad()
        loss.backward()
        if ensemble.context.grad is not None:
            sum_over_workers(ensemble.context.grad, world)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings)
        optimizer.step()
        total += loss.detach() / ensemble.contexts
        state.step += 1
        if state.step % settings.checkpoint_steps == 0 or state.step == settings.steps:
            check.update(state, optimizer, total / (state.step - last_check), lists.per_epoch)
            total.zero_()
            last_check = state.step
            if on_check is not None:
                on_check(state)
    if isinstance(learner, PromptLearner):
        with torch.no_grad():
            learner.context.copy_(ensemble.context[0])
    return state


class Objective:
    """What some prompts of an ensemble are to learn; the sum over all prompts is the whole.

    Args:
        prompts: The part of the ensemble that this process runs.
        tower: The text tower.
        data: The rows.
        settings: How to train.
        has_labels: Whether targets are pseudo-labels.

    Attributes:
        contexts: Numbers of the contexts of which it has prompts.
    """

    def __init__(
        self,
        prompts: PromptEnsemble,
        tower: ContextTextEncoder,
        data: TrainingData,
        settings: Settings,
        *,
        has_labels: bool = False,
    ) -> None:
        self._prompts, self._tower, self._settings = prompts, tower, settings
        self._device = prompts.context.device
        self._pairs = len(prompts.pairs)
        self._per_pair = data.per_pair
        self._trust = torch.tensor(data.trust or (1.0,) * self._pairs, device=self._device)
        self._loss: Loss = pseudo_label_loss if has_labels else settings.make_loss()
        self._places = {
            context: [n for n, unit in enumerate(prompts.units) if unit[0] == context]
            for context in {unit[0] for unit in prompts.units}
        }
        self.contexts = sorted(self._places)
        self._about = torch.ones(self._pairs, device=self._device)
        self._fixed: torch.Tensor | None = None
        if settings.meaning and self._pairs > 1:
            texts = [side for pair in prompts.pairs for side in (pair.positive, pair.negative)]
            fixed = tower.encode(texts).to(self._device)
            self._fixed = fixed.reshape(self._pairs, 2, -1)
            self._about = _about_quality(data.pair_trust, self._pairs).to(self._device)

    def __call__(self, batches: Mapping[int, Batch]) -> torch.Tensor:
        """Return the loss of a step: a scalar, the sum over contexts of the mean over pairs.

        Args:
            batches: For each context of :attr:`contexts` what it learns from.
        """
        prompts = self._prompts.encode(self._tower)
        total = prompts.sum() * 0
        for context, places in self._places.items():
            batch = batches[context].to(self._device)
            pairs = [self._prompts.units[place][1] for place in places]
            total = total + self._of_one(prompts[places], pairs, batch)
        return total

    def _of_one(self, prompts: torch.Tensor, pairs: list[int], batch: Batch) -> torch.Tensor:
        scale = self._settings.logit_scale
        margins = pair_margins(prompts, batch.features, scale)
        targets = batch.targets[:, pairs] if self._per_pair else batch.targets
        each = self._loss(margins.T.contiguous(), targets.T.contiguous()) * self._trust[pairs]
        if len(batch.views) and self._settings.order_weight:
            copies = pair_margins(prompts, batch.views, scale)
            known = order_loss(copies, batch.levels, batch.images)
            each = each + self._settings.order_weight * known
        each = each * self._about[pairs]
        if self._fixed is not None:
            own = pair_margins(self._fixed[pairs], batch.features, scale)
            each = each + self._settings.meaning * (1 - _correlation(margins, own))
        return each.sum() / self._pairs


def _about_quality(trust: Sequence[float], pairs: int) -> torch.Tensor:
    """Return how far each pair is about quality: its trust relative to the most trusted pair's, (P,).

    A pair that says something else, such as how much contrast there is, is not to learn the order of
    quality: it keeps its own. Where no pair can be trusted, all are to learn.
    """
    found = torch.tensor(trust if trust else [1.0] * pairs)
    return found / found.max() if found.max() >= _TRUSTED else torch.ones(pairs)


def _correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation of each column: (L, P), (L, P) -> (P,)."""
    first, second = (x - x.mean(dim=0) for x in (first, second))
    length = (first.square().sum(dim=0) * second.square().sum(dim=0)).clamp(min=1e-12).sqrt()
    return (first * second).sum(dim=0) / length


def _set_context(ensemble: PromptEnsemble, context: torch.Tensor) -> None:
    with torch.no_grad():
        ensemble.context.copy_(context)


def _optimizer(ensemble: PromptEnsemble, settings: Settings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD([ensemble.context], lr=rate, momentum=_MOMENTUM, weight_decay=decay)
    return torch.optim.AdamW([ensemble.context], lr=rate, weight_decay=decay)
