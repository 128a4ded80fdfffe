"""Checks on the held-out rows: the agreement that chooses the step to keep, and early stopping."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from iqa_core.evaluation.correlations import srcc
from iqa_core.prompts.learner import PromptLearner
from iqa_core.scoring.margins import image_scores_f64, pair_margins
from iqa_core.training.data import Rows, TrainingData
from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.settings import Settings, learning_rate
from iqa_core.training.state import State
from iqa_core.training.world import World

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ContextTextEncoder

__all__ = ["HeldOutCheck", "agreement", "held_out_margins"]

_VIEWED_ROWS = 512  # held-out rows whose views are compared
_CHUNK = 8192  # held-out rows in one matrix product


class HeldOutCheck:
    """Measures the agreement on the held-out rows, and decides whether training continues.

    Args:
        learner: The learner that is trained.
        tower: Its text tower, on the same device.
        data: The rows.
        settings: How it is trained.
        world: This worker's place; the first worker measures.
    """

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
        self.data = data
        self.settings = settings
        self.world = world
        self.started = time.monotonic()
        self.held_out = data.held_out() if world.rank == 0 else None

    def update(
        self,
        state: State,
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor,
        per_epoch: int,
    ) -> None:
        """Check the present context, and note the outcome in the state.

        All workers call this at the same step: the first worker's measurement is broadcast, so that all
        decide the same.

        Args:
            state: Brought up to date: context, optimizer, best so far, history, and whether training
                has ended.
            optimizer: The optimizer.
            loss: Scalar, the mean loss since the last check.
            per_epoch: Steps of one pass over the rows.
        """
        context = self.learner.context.detach()
        found = torch.tensor([math.nan, 0.0], dtype=torch.float64, device=context.device)
        if self.held_out is not None and context.isfinite().all():
            found[0] = self._agreement(self.held_out)
        found[1] = loss
        if self.world.size > 1:
            if self.settings.lists == "local":
                dist.all_reduce(found[1:])
            dist.broadcast(found, src=0)
        reached, mean_loss = found.tolist()
        state.context = context.cpu().clone()
        state.optimizer = optimizer.state_dict() if state.step else {}
        if reached > state.best:
            state.best, state.best_step = reached, state.step
            state.checks_without_improvement = 0
            state.best_context = state.context
        else:
            state.checks_without_improvement += bool(state.step)
        if not context.isfinite().all() or (state.step and not math.isfinite(mean_loss)):
            state.ended = "diverged"
        elif state.step >= self.settings.steps:
            state.ended = "steps"
        elif state.checks_without_improvement >= self.settings.patience:
            state.ended = "patience"
        state.history.append(
            {
                "step": state.step,
                "epoch": state.step / per_epoch,
                "loss": mean_loss,
                "learning_rate": learning_rate(state.step, self.settings),
                "agreement": reached,
                "seconds": time.monotonic() - self.started,
            }
        )

    def _agreement(self, rows: Rows) -> float:
        """Return the mean agreement with the teacher and the known order, by trust and weight."""
        scale = self.settings.logit_scale
        margins = held_out_margins(self.learner, self.tower, rows.features, scale)
        reached = agreement(margins, rows.targets, per_pair=self.data.per_pair)
        if not self.data.views or not self.settings.order_weight:
            return reached
        views = rows.views[:_VIEWED_ROWS].reshape(-1, self.data.width)
        copies = held_out_margins(self.learner, self.tower, views, scale)
        scores = image_scores_f64(torch.cat([margins[:_VIEWED_ROWS], copies]))
        levels = torch.from_numpy(np.array(rows.levels[:_VIEWED_ROWS])).ravel()
        clean = torch.zeros(len(scores) - len(levels), dtype=levels.dtype)
        known = float(known_order_agreement(scores, torch.cat([clean, levels])))
        weight, trust = self.settings.order_weight, float(np.mean(self.data.trust))
        return (weight * known + trust * reached) / (weight + trust)


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
    """Return the rank agreement (SRCC) of a student with its targets.

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
