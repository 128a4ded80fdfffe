"""Prompts that are shared between workers: who runs which, and how their gradients add up.

A list's loss is a sum over contexts and pairs, so each worker runs the text tower for its own prompts only,
on the same lists of images as all others, and the sum of the workers' gradients is the gradient.

Where ``torch.distributed`` is initialised its processes are the workers, elsewhere this process is the
only one. Nothing here depends on Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from iqa_core.errors import InputError

__all__ = ["World", "check_workers", "sum_over_workers"]


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


def check_workers(workers: int, contexts: int, pairs: int) -> None:
    """Refuse more workers than there are prompts to share.

    Args:
        workers: W.
        contexts: K.
        pairs: P.

    Raises:
        InputError: If W is above K P.
    """
    if workers > contexts * pairs:
        raise InputError(
            argument="num_workers",
            value=workers,
            limit=f"at most {contexts * pairs}, as {contexts} contexts of {pairs} prompt pairs are shared",
            fix="use fewer workers",
        )


def sum_over_workers(values: torch.Tensor, world: World) -> None:
    """Add up a tensor over workers, in place."""
    if world.size > 1:
        dist.all_reduce(values)
