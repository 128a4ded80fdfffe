"""The pool of scoring actors: number, resources, and what it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..cluster import Resources

__all__ = ["ActorPool", "plan_actors", "waiting_for"]

_ROUNDING = 1e-6  # of sums of fractions such as 0.1


@dataclass(frozen=True)
class ActorPool:
    """The pool of scoring actors.

    Attributes:
        most: Maximum number of actors; None starts as many as the cluster has room for.
        cpus: CPUs of each, and its number of threads.
        gpus: GPUs of each; 0 scores on CPUs.
        left_out: Ids of nodes on which an actor could not start.
    """

    most: int | None
    cpus: float
    gpus: float
    left_out: tuple[str, ...] = ()

    @property
    def resources(self) -> Resources:
        """Resources of one actor, by kind."""
        return {"CPU": self.cpus, "GPU": self.gpus}

    def fits(self, node: Resources) -> bool:
        """Return whether a node with these resources could hold an actor."""
        return all(node.get(kind, 0.0) >= each for kind, each in self.resources.items())

    def without(self, node: str) -> ActorPool:
        """Return a pool that also avoids the node with this id."""
        return replace(self, left_out=(*self.left_out, node))

    @property
    def label_selector(self) -> dict[str, str] | None:
        """Ray's label selector that excludes the nodes that are left out."""
        return {"ray.io/node-id": f"!in({','.join(self.left_out)})"} if self.left_out else None

    def __str__(self) -> str:
        """Return a description: ``at most 4 GPU actors``."""
        device = "GPU" if self.gpus else "CPU"
        if self.most is None:
            return f"as many {device} actors as the cluster comes to hold"
        return f"at most {self.most} {device} actor{'' if self.most == 1 else 's'}"


def plan_actors(
    number: int | None,
    cpus: float | None,
    gpus: float | None,
    nodes: Sequence[Resources],
    possible_gpus: float | None = None,
) -> ActorPool:
    """Fill in the defaults: an actor for each GPU, or else for each CPU.

    Args:
        number: ``--num-actors``.
        cpus: ``--cpus-per-actor``.
        gpus: ``--gpus-per-actor``.
        nodes: Resources of each live node.
        possible_gpus: GPUs that the cluster could have; None if unknown.

    Raises:
        InputError: If ``--gpus-per-actor`` is a fraction above one, which Ray does not take.
    """
    present = sum(node.get("GPU", 0.0) for node in nodes)
    if gpus is None:
        gpus = 1.0 if present or possible_gpus else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise InputError(
            argument="gpus_per_actor",
            value=gpus,
            limit="a whole number where it is above 1",
            fix="Ray shares one GPU between actors, but not several",
        )
    cpus = 1.0 if cpus is None else cpus
    if number is not None:
        return ActorPool(number, cpus, gpus)
    if not gpus:
        most = sum(math.floor(node.get("CPU", 0.0) / cpus + _ROUNDING) for node in nodes)
        return ActorPool(max(1, most), cpus, gpus)
    fitting = sum(_fitting(node.get("GPU", 0.0), gpus) for node in nodes)
    if possible_gpus is not None:
        # Only the sum of future GPUs is known: assume that they are on as few nodes as possible.
        return ActorPool(max(1, fitting, _fitting(possible_gpus, gpus)), cpus, gpus)
    return ActorPool(fitting or None, cpus, gpus)


def _fitting(have: float, each: float) -> int:
    """Return how many actors with ``each`` GPUs fit; a fraction never spans two GPUs."""
    if each > 1:
        return math.floor(have / each + _ROUNDING)
    return math.floor(have + _ROUNDING) * math.floor(1 / each + _ROUNDING)


def waiting_for(
    pool: ActorPool, nodes: Sequence[Resources], what: str = "a scoring actor"
) -> str | None:
    """Return what an actor needs that no node has, as a message; None if a node has it.

    Args:
        pool: The pool.
        nodes: Resources of each live node that may hold actors.
        what: Name of an actor in the message.
    """
    if any(pool.fits(node) for node in nodes):
        return None
    need = pool.resources
    wanted = ", ".join(f"{each:g} {kind}" for kind, each in need.items() if each)
    have = ", ".join(
        f"{max((node.get(kind, 0.0) for node in nodes), default=0.0):g} {kind}"
        for kind, each in need.items()
        if each
    )
    return f"waiting for a node with {wanted} for {what} (no node has more than {have})"
