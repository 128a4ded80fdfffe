"""Checks on the held-out rows while training goes on: for its curves, and to notice that it diverged."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from iqa_core.evaluation.correlations import srcc
from iqa_core.scoring.margins import pair_margins
from iqa_core.training.settings import Settings, learning_rate
from iqa_core.training.world import World, sum_over_workers

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ContextTextEncoder
    from iqa_core.prompts.ensemble import PromptEnsemble
    from iqa_core.training.data import TrainingData
    from iqa_core.training.state import State

__all__ = ["HeldOutCheck", "agreement", "held_out_margins", "mean_scores"]

_CHUNK = 8192  # held-out rows in one matrix product


class HeldOutCheck:
    """Measures the agreement on the held-out rows; it decides nothing but that training diverged.

    Args:
        ensemble: The contexts that are trained.
        tower: Their text tower, on the same device.
        data: The rows.
        settings: How they are trained.
        world: This worker's place; the first worker measures.
    """

    def __init__(
        self,
        ensemble: PromptEnsemble,
        tower: ContextTextEncoder,
        data: TrainingData,
        settings: Settings,
        world: World,
    ) -> None:
        self.ensemble = ensemble
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
        """Check the present contexts, and note the outcome in the state.

        All workers call this at the same step: the first worker's measurement is broadcast.

        Args:
            state: Brought up to date: contexts, optimizer, history, and whether training has ended.
            optimizer: The optimizer.
            loss: Scalar, this worker's part of the mean loss since the last check.
            per_epoch: Steps of one pass over the rows.
        """
        context = self.ensemble.context.detach()
        found = torch.tensor([math.nan, 0.0], dtype=torch.float64, device=context.device)
        if self.held_out is not None and context.isfinite().all():
            margins = held_out_margins(
                self.ensemble, self.tower, self.held_out.features, self.settings.logit_scale
            )
            found[0] = agreement(margins, self.held_out.targets, per_pair=self.data.per_pair)
        found[1] = loss
        sum_over_workers(found[1:], self.world)
        if self.world.size > 1:
            dist.broadcast(found, src=0)
        reached, mean_loss = found.tolist()
        state.context = context.cpu().clone()
        state.optimizer = optimizer.state_dict() if state.step else {}
        if not context.isfinite().all() or (state.step and not math.isfinite(mean_loss)):
            state.ended = "diverged"
        elif state.step >= self.settings.steps:
            state.ended = "steps"
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


@torch.no_grad()
def held_out_margins(
    ensemble: PromptEnsemble, tower: ContextTextEncoder, features: np.ndarray, logit_scale: float
) -> torch.Tensor:
    """Return the margins of rows by the present contexts: (N, K, P) float32 on the CPU.

    Args:
        ensemble: On the device of the tower.
        tower: The text tower.
        features: (N, D) of any float type.
        logit_scale: The factor g.
    """
    prompts = ensemble(tower).flatten(0, 1)
    parts = []
    for start in range(0, len(features), _CHUNK):
        rows = torch.from_numpy(np.array(features[start : start + _CHUNK]))
        parts.append(pair_margins(prompts, rows.to(prompts.device), logit_scale).cpu())
    return torch.cat(parts).reshape(len(features), ensemble.contexts, -1)


def mean_scores(margins: torch.Tensor, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the image scores of several contexts: (N,) float64.

    Args:
        margins: (N, K, P).
        weights: (P,) of the pairs, with the sum 1; None is the mean.
    """
    each = margins.double().sigmoid().mean(dim=1).numpy()
    scores: np.ndarray = each.mean(axis=1) if weights is None else each @ weights
    return scores


def agreement(margins: torch.Tensor, targets: np.ndarray, *, per_pair: bool) -> float:
    """Return the rank agreement (SRCC) of a student with its targets.

    Args:
        margins: (N, K, P).
        targets: (N, P) if ``per_pair``, else (N, 1).
        per_pair: Whether each pair is compared with its own target and the mean is taken; else the
            image score, the mean over pairs of sigmoid(margin), is compared.

    Returns:
        In [-1, 1]; NaN where nothing can be ordered.
    """
    if per_pair:
        each = margins.double().sigmoid().mean(dim=1).numpy()
        return float(np.mean([srcc(each[:, p], targets[:, p]) for p in range(each.shape[1])]))
    return srcc(mean_scores(margins), targets[:, 0])
