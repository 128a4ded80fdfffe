"""The pool of scoring actors: how many, on what, and why it may have to wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..cluster import Resources

__all__ = ["Actors", "plan_actors", "waiting_for"]

_ROUNDING = 1e-6  # of sums of fractions such as 0.1


@dataclass(frozen=True)
class Actors:
    """The pool of scoring actors.

    Attributes:
        most: Actors at most; None lets as many start as the cluster comes to hold.
        cpus: CPUs of each, also its threads.
        gpus: GPUs of each; 0 scores on CPUs.
        left_out: Ids of nodes on which an actor could not start.
    """

    most: int | None
    cpus: float
    gpus: float
    left_out: tuple[str, ...] = ()

    @property
    def label_selector(self) -> dict[str, str] | None:
        """What keeps actors off the nodes that are left out, as Ray takes it."""
        return {"ray.io/node-id": f"!in({','.join(self.left_out)})"} if self.left_out else None

    def __str__(self) -> str:
        """Return it as a person reads it: ``at most 4 GPU actors``."""
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
) -> Actors:
    """Fill in what the user left open: an actor for each GPU, or else for all CPUs but one.

    Args:
        number: ``--num-actors``.
        cpus: ``--cpus-per-actor``.
        gpus: ``--gpus-per-actor``.
        nodes: Resources of each node that is there.
        possible_gpus: GPUs that the cluster could come to have; None if it is not known.

    Raises:
        InputError: If ``--gpus-per-actor`` is a fraction above one, which Ray does not take.
    """
    present = sum(node.get("GPU", 0.0) for node in nodes)
    if gpus is None:
        gpus = 1.0 if present or possible_gpus else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise InputError(
            f"--gpus-per-actor {gpus:g} must be a whole number where it is above 1: Ray shares one "
            "GPU between actors, but not several"
        )
    cpus = 1.0 if cpus is None else cpus
    if number is not None:
        return Actors(number, cpus, gpus)
    if not gpus:
        spare = max(
            1.0, sum(node.get("CPU", 0.0) for node in nodes) - 1.0
        )  # reading must never starve
        return Actors(max(1, math.floor(spare / cpus + _ROUNDING)), cpus, gpus)
    fitting = sum(_fitting(node.get("GPU", 0.0), gpus) for node in nodes)
    if possible_gpus is not None:
        # Of what is to come only the sum is known: as if each GPU were on the fewest nodes.
        return Actors(max(1, fitting, _fitting(possible_gpus, gpus)), cpus, gpus)
    return Actors(fitting or None, cpus, gpus)


def _fitting(have: float, each: float) -> int:
    """Return how many actors of so many GPUs each fit: a fraction is of one GPU, never of two."""
    if each > 1:
        return math.floor(have / each + _ROUNDING)
    return math.floor(have + _ROUNDING) * math.floor(1 / each + _ROUNDING)


def waiting_for(
    actors: Actors, nodes: Sequence[Resources], what: str = "a scoring actor"
) -> str | None:
    """Return what no node has yet that an actor needs, in words; None if a node has it.

    Args:
        actors: The pool.
        nodes: Resources of each node that is there and may hold actors.
        what: What one of the pool is called.
    """
    need = {"CPU": actors.cpus, "GPU": actors.gpus}
    if any(all(node.get(kind, 0.0) >= each for kind, each in need.items()) for node in nodes):
        return None
    wanted = ", ".join(f"{each:g} {kind}" for kind, each in need.items() if each)
    have = ", ".join(
        f"{max((node.get(kind, 0.0) for node in nodes), default=0.0):g} {kind}"
        for kind, each in need.items()
        if each
    )
    return f"waiting for a node with {wanted} for {what} (no node has more than {have})"
