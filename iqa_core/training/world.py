"""Lists that span workers: who brings which rows, and a loss whose gradients add up.

Where ``torch.distributed`` is initialised its processes are the workers, elsewhere this process is the
only one. Nothing here depends on Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from iqa_core.errors import InputError
from iqa_core.losses.table import Loss
from iqa_core.training.settings import Lists, Settings

__all__ = ["World", "epoch_order", "list_loss", "steps_per_epoch", "sum_gradients"]


@dataclass(frozen=True)
class World:
    """This worker's rank, and the number of workers."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return this process's place in ``torch.distributed``, or that of an only worker."""
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
                argument="list_size",
                value=settings.list_size,
                limit=f"a multiple of the {self.size} workers that share a list",
                fix=f"use {self.size * max(1, settings.list_size // self.size)}, or local lists",
            )
        return settings.list_size // self.size


def steps_per_epoch(rows: int, settings: Settings, world: World) -> int:
    """Return the steps of one pass over the rows, the same for all workers.

    Raises:
        InputError: If the rows don't fill one step.
    """
    mine = world.rows_per_step(settings)
    shard = rows // world.size
    if shard < mine:
        most, what = world.size * shard, "the number of training rows"
        if settings.lists == "local" and world.size > 1:
            most, what = shard, f"one worker's share of the {rows:,} training rows"
        raise InputError(
            argument="list_size",
            value=settings.list_size,
            limit=f"at most {most:,}, {what}",
            fix="lower it, use fewer workers, or embed more images",
        )
    return shard // mine


def epoch_order(rows: int, seed: int, epoch: int, world: World) -> np.ndarray:
    """Return the order in which a worker takes the rows of its shard: (rows,) uint32."""
    generator = np.random.default_rng([seed, epoch, world.rank, world.size])
    return generator.permutation(np.arange(rows, dtype=np.uint32))


def list_loss(
    margins: torch.Tensor,
    targets: torch.Tensor,
    loss: Loss,
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
        lists: See :class:`iqa_core.training.settings.Settings`.
        world: This worker's place.
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
