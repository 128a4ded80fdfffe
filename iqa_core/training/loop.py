"""Learning prompts from cached features, on one process or on many that share each list.

    rows of a shard -> margins of my part of a list -> gathered into the list -> ranking loss
                    -> gradient of the context, summed over workers -> step

The towers are frozen, so no image is read: a step is one pass of the text tower over the prompts and
one matrix product. Nothing here knows Ray: where ``torch.distributed`` is initialised its processes
are the workers, elsewhere this process is the only one.

Everything random follows from (seed, epoch, worker, workers), and the learning rate from the step
alone. So a :class:`State` is all that a killed run needs to go on, and it goes on as if nothing had
happened.

Sources: Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022,
https://arxiv.org/abs/2109.01134 (the training: few steps, warm-up, cosine). What differs: rankings
instead of classes, no labels by default, early stopping.
"""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.distributed as dist

from iqa_core.errors import InputError
from iqa_core.evaluation.correlations import srcc
from iqa_core.losses.ranking import make_loss
from iqa_core.scoring.margins import image_scores_f64, pair_margins
from iqa_core.training.known_order import known_order_agreement, order_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from iqa_core.clip.encoder import ContextTextEncoder
    from iqa_core.losses.ranking import RankingLoss
    from iqa_core.prompts.learner import PromptLearner
    from iqa_core.training.data import Rows, TrainingData

__all__ = [
    "Lists",
    "Optimizer",
    "Settings",
    "State",
    "World",
    "agreement",
    "epoch_order",
    "held_out_margins",
    "learning_rate",
    "list_loss",
    "steps_per_epoch",
    "sum_gradients",
    "train",
]

Lists = Literal["global", "local"]
Optimizer = Literal["adamw", "sgd"]

_MOMENTUM = 0.9
_ORDER_ROWS = 512  # held-out rows whose views are looked at
_CHUNK = 8192  # held-out rows in one matrix product


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train. What changes the result is here; what only changes where it runs is not.

    Attributes:
        loss: A key of :data:`iqa_core.losses.ranking.LOSSES`.
        loss_options: Its hyper-parameters; what is left out has its default.
        list_size: L, the images of one list, at least 2.
        lists: ``global`` lists span the workers, L / W rows from each; with ``local`` ones each
            worker ranks L rows of its own, and the gradients are averaged.
        optimizer: AdamW, or SGD with momentum 0.9.
        learning_rate: At its highest.
        weight_decay: Of the context, towards 0.
        warmup: Share of the steps in which the learning rate rises from 0; then a cosine to 0.
        steps: Steps at most.
        interval: Steps between two looks at the held-out rows, each of which is a checkpoint.
        patience: Looks without a better agreement after which training ends.
        logit_scale: The factor g on cosine differences.
        order_weight: Weight of the known order of degraded views beside that of the teacher, where
            the data have views; 0 leaves it out.
        seed: Of the lists; the context's start has its own.

    Raises:
        InputError: If a value is unusable.
    """

    loss: str = "listmle"
    loss_options: Mapping[str, float] = field(default_factory=dict)
    list_size: int = 64
    lists: Lists = "global"
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.1
    steps: int = 500
    interval: int = 20
    patience: int = 10
    logit_scale: float = 100.0
    order_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the command line can't."""
        self.make_loss()
        for name, value, low in (
            ("list_size", self.list_size, 2),
            ("steps", self.steps, 1),
            ("interval", self.interval, 1),
            ("patience", self.patience, 1),
        ):
            if value < low:
                raise InputError(f"{name} ({value}) must be at least {low}")

    def make_loss(self) -> RankingLoss:
        """Return the loss with its hyper-parameters set."""
        return make_loss(self.loss, **self.loss_options)


@dataclass(frozen=True)
class World:
    """Which worker this is, of how many."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return the place in ``torch.distributed``, or that of an only worker."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def rows_per_step(self, settings: Settings) -> int:
        """Return how many rows each worker brings to a step.

        Raises:
            InputError: If a list can't be shared equally.
        """
        if settings.lists == "local":
            return settings.list_size
        if settings.list_size % self.size:
            raise InputError(
                f"list_size ({settings.list_size}) must be a multiple of the {self.size} workers "
                f"that share a list: use {self.size * max(1, settings.list_size // self.size)}, or "
                "local lists"
            )
        return settings.list_size // self.size


def steps_per_epoch(rows: int, settings: Settings, world: World) -> int:
    """Return the steps of one pass over the rows, the same for all workers.

    Raises:
        InputError: If the rows don't fill one step.
    """
    mine = world.rows_per_step(settings)
    steps = rows // world.size // mine
    if not steps:
        shard = f"a shard of {rows // world.size:,}" if world.size > 1 else f"the {rows:,}"
        raise InputError(
            f"a step needs {mine:,} rows of a worker (list_size {settings.list_size}, "
            f"{settings.lists} lists, {world.size} workers), more than {shard} training rows: lower "
            "--list-size or use fewer workers"
        )
    return steps


def epoch_order(rows: int, seed: int, epoch: int, world: World) -> np.ndarray:
    """Return the order in which a worker takes the rows of its shard: (rows,) uint32."""
    generator = np.random.default_rng([seed, epoch, world.rank, world.size])
    return generator.permutation(np.arange(rows, dtype=np.uint32))


def learning_rate(step: int, settings: Settings) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then a cosine to 0."""
    warm = math.ceil(settings.warmup * settings.steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, settings.steps - warm)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def list_loss(
    margins: torch.Tensor,
    targets: torch.Tensor,
    loss: RankingLoss,
    lists: Lists,
    world: World,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return a worker's share of the loss: its gradients, summed over workers, are the gradient.

    * ``global``: every worker computes the loss of the whole list, from its own margins and from
      the values of the others' (no gradient: each differentiates its own rows, so that in the sum
      over workers each row counts once). Had the gather carried gradients, each worker would get
      its rows' gradient W times, from W equal losses, at the price of a second exchange.
    * ``local``: the loss of the worker's own list, over W: the sum is the mean of W lists.

    Args:
        margins: (l, P) of this worker's rows, with gradients.
        targets: (l, P) or (l, 1).
        loss: Called with (P, L) margins.
        lists: See :class:`Settings`.
        world: Which worker this is.
        weights: (P,) of the pairs; None is 1.

    Returns:
        A scalar, the mean over pairs. With ``global`` lists the same on all workers; with ``local``
        ones the sum over workers is the mean of the lists' losses.
    """
    if lists == "global":
        margins, targets = _gather(margins, world), _gather(targets, world)
    each = loss(margins.T.contiguous(), targets.T.contiguous())
    mean = (each if weights is None else each * weights).mean()
    return mean if lists == "global" else mean / world.size


def _gather(rows: torch.Tensor, world: World) -> torch.Tensor:
    """(l, ...) of each worker -> (W l, ...) in the workers' order; gradients of the own part."""
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[world.rank] = rows
    return torch.cat(parts)


def sum_gradients(parameter: torch.Tensor, world: World) -> None:
    """Add up a parameter's gradients over workers, in place."""
    if world.size > 1 and parameter.grad is not None:
        dist.all_reduce(parameter.grad)


@dataclass
class State:
    """Where a training is: all that it needs to go on.

    Attributes:
        step: Steps done.
        context: The context vectors.
        optimizer: The optimizer's state.
        best: The highest agreement so far; -inf if there is none.
        best_step: The step it was reached at.
        best_context: The context vectors then.
        waited: Looks at the held-out rows since.
        history: One record for each look: ``step``, ``epoch``, ``loss`` (mean since the last look,
            NaN at step 0), ``learning_rate``, ``agreement``, ``seconds`` since the start or restart.
        ended: Why training ended: ``steps``, ``patience`` or ``diverged``; None if it has not.
    """

    step: int
    context: torch.Tensor
    optimizer: dict[str, Any]
    best: float
    best_step: int
    best_context: torch.Tensor
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    ended: str | None = None

    def to_bytes(self) -> bytes:
        """Return the state as a file's content."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """Read a state; tensors and plain values only, nothing that can run."""
        return cls(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def train(
    learner: PromptLearner,
    tower: ContextTextEncoder,
    data: TrainingData,
    settings: Settings,
    *,
    state: State | None = None,
    on_look: Callable[[State], None] | None = None,
) -> State:
    """Train the context of a prompt learner; every worker calls this alike.

    Args:
        learner: Its context is trained in place; afterwards it has the best one.
        tower: Its text tower, on the same device.
        data: The rows.
        settings: How.
        state: Where to go on; None begins.
        on_look: Called by every worker after each look at the held-out rows, the one before the
            first step included: the place for checkpoints.

    Returns:
        The final state.

    Raises:
        InputError: If the rows don't fill one step.
    """
    world = World.current()
    per_epoch = steps_per_epoch(data.rows, settings, world)
    optimizer = _optimizer(learner, settings)
    look = _Look(learner, tower, data, settings, world)
    if state is None:
        if world.size > 1:
            dist.broadcast(learner.context.data, src=0)
        start = learner.context.detach().cpu().clone()
        state = State(0, start, {}, -math.inf, 0, start)
        look(state, optimizer, torch.tensor(math.nan), per_epoch)
        _tell(on_look, state)
    else:
        _set_context(learner, state.context)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
    lists = _lists(data, settings, world, per_epoch, state.step)
    loss_of = settings.make_loss()
    trust = torch.tensor(data.trust or (1.0,) * data.pairs, device=learner.context.device)
    total = torch.zeros((), device=learner.context.device)
    since = state.step
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
        if state.step % settings.interval == 0 or state.step == settings.steps:
            look(state, optimizer, total / (state.step - since), per_epoch)
            total.zero_()
            since = state.step
            _tell(on_look, state)
    _set_context(learner, state.best_context)
    return state


def _tell(on_look: Callable[[State], None] | None, state: State) -> None:
    if on_look is not None:
        on_look(state)


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
    """Yield this worker's rows of each list from a step on, for ever: with (l V, D) views."""
    shard = data.shard(world.rank, world.size)
    mine = world.rows_per_step(settings)
    epoch, place = divmod(step, per_epoch)
    while True:
        order = epoch_order(len(shard.features), settings.seed, epoch, world)
        for start in range(place * mine, per_epoch * mine, mine):
            rows = np.sort(order[start : start + mine])  # a list has no order; a disk does
            yield (
                torch.from_numpy(shard.features[rows]),
                torch.from_numpy(shard.targets[rows]),
                torch.from_numpy(shard.views[rows].reshape(-1, data.width)),
                torch.from_numpy(shard.levels[rows].ravel()),
            )
        epoch, place = epoch + 1, 0


class _Look:
    """Looks at the held-out rows, and decides whether training goes on."""

    def __init__(
        self,
        learner: PromptLearner,
        tower: ContextTextEncoder,
        data: TrainingData,
        settings: Settings,
        world: World,
    ) -> None:
        self.learner = learner
        self.tower = tower
        self.settings = settings
        self.world = world
        self.began = time.monotonic()
        self.held_out = data.held_out() if world.rank == 0 else None
        self.data = data

    def _agreement(self, rows: Rows) -> float:
        """Agreement with the teacher, as far as it is to be trusted, and with the known order."""
        scale = self.settings.logit_scale
        margins = held_out_margins(self.learner, self.tower, rows.features, scale)
        reached = agreement(margins, rows.targets, per_pair=self.data.per_pair)
        if not self.data.views or not self.settings.order_weight:
            return reached
        views = rows.views[:_ORDER_ROWS].reshape(-1, self.data.width)
        copies = held_out_margins(self.learner, self.tower, views, scale)
        scores = image_scores_f64(torch.cat([margins[:_ORDER_ROWS], copies]))
        levels = torch.from_numpy(np.array(rows.levels[:_ORDER_ROWS])).ravel()
        clean = torch.zeros(len(scores) - len(levels), dtype=levels.dtype)
        known = float(known_order_agreement(scores, torch.cat([clean, levels])))
        weight, trust = self.settings.order_weight, float(np.mean(self.data.trust))
        return (weight * known + trust * reached) / (weight + trust)

    def __call__(
        self,
        state: State,
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor,
        per_epoch: int,
    ) -> None:
        """Bring the state up to date. The first worker measures, so that all decide alike."""
        context = self.learner.context.detach()
        seen = torch.tensor([math.nan, 0.0], dtype=torch.float64, device=context.device)
        if self.held_out is not None and context.isfinite().all():
            seen[0] = self._agreement(self.held_out)
        seen[1] = loss
        if self.world.size > 1:
            if self.settings.lists == "local":
                dist.all_reduce(seen[1:])
            dist.broadcast(seen, src=0)
        reached, mean_loss = seen.tolist()
        state.context = context.cpu().clone()
        state.optimizer = optimizer.state_dict() if state.step else {}
        if reached > state.best:
            state.best, state.best_step, state.waited = reached, state.step, 0
            state.best_context = state.context
        else:
            state.waited += bool(state.step)
        if not context.isfinite().all() or (state.step and not math.isfinite(mean_loss)):
            state.ended = "diverged"
        elif state.step >= self.settings.steps:
            state.ended = "steps"
        elif state.waited >= self.settings.patience:
            state.ended = "patience"
        state.history.append(
            {
                "step": state.step,
                "epoch": state.step / per_epoch,
                "loss": mean_loss,
                "learning_rate": learning_rate(state.step, self.settings),
                "agreement": reached,
                "seconds": time.monotonic() - self.began,
            }
        )


@torch.no_grad()
def held_out_margins(
    learner: PromptLearner, tower: ContextTextEncoder, features: np.ndarray, logit_scale: float
) -> torch.Tensor:
    """Return the margins of rows by the learner's present prompts: (N, P) float32 on the CPU.

    Args:
        learner: On the device of the tower.
        tower: The text tower.
        features: (N, D) of any float type.
        logit_scale: The factor g.
    """
    prompts = learner(tower)
    parts = []
    for start in range(0, len(features), _CHUNK):
        rows = torch.from_numpy(np.array(features[start : start + _CHUNK]))
        parts.append(pair_margins(prompts, rows.to(prompts.device), logit_scale).cpu())
    return torch.cat(parts)


def agreement(margins: torch.Tensor, targets: np.ndarray, *, per_pair: bool) -> float:
    """Return the rank agreement (SRCC) of a student with what it learns from.

    Args:
        margins: (N, P).
        targets: (N, P) if ``per_pair``, else (N, 1).
        per_pair: Whether each pair is compared with its own target and the mean is taken; else the
            image score, the mean over pairs of sigmoid(margin), is compared.

    Returns:
        In [-1, 1]; NaN where nothing can be ordered.
    """
    if per_pair:
        each = [srcc(margins[:, p].numpy(), targets[:, p]) for p in range(margins.shape[1])]
        return float(np.mean(each))
    return srcc(image_scores_f64(margins)[:, 0].numpy(), targets[:, 0])
