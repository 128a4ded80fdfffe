"""The pool of scoring actors: number, resources, and what it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError

from ..progress import Waiting
from .placement import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..node_types import NodeType, Resources

__all__ = ["ActorPool", "gpus_per_actor", "leaving_a_cpu", "plan_actors", "waiting_for"]

_ROUNDING = 1e-6  # of sums of fractions such as 0.1


@dataclass(frozen=True)
class ActorPool:
    """The pool of scoring actors.

    Attributes:
        most: Maximum number of actors; None starts as many as the cluster comes to hold.
        cpus: CPUs of each, and its number of threads.
        gpus: GPUs of each; 0 scores on CPUs.
        first: Actors that are asked for at the start; None asks for ``most``, or else for one.
        memory: Bytes of memory of each; None states none, neither for other stages.
        score_on: Where they may run.
        decode_on: Where tasks that decode for them may run.
    """

    most: int | None
    cpus: float
    gpus: float
    first: int | None = None
    memory: int | None = None
    score_on: Placement = field(default_factory=Placement)
    decode_on: Placement = field(default_factory=Placement)

    @property
    def resources(self) -> Resources:
        """Resources of one actor, by kind."""
        memory = {} if self.memory is None else {"memory": float(self.memory)}
        return {"CPU": self.cpus, "GPU": self.gpus, **memory, **self.score_on.resources}

    def fits(self, node: Resources) -> bool:
        """Return whether a node with these resources could hold an actor."""
        return all(node.get(kind, 0.0) >= each for kind, each in self.resources.items())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Ids of nodes on which an actor could not start."""
        return self.score_on.left_out

    def without(self, node: str) -> ActorPool:
        """Return a pool that also avoids the node with this id."""
        score_on = replace(self.score_on, left_out=(*self.left_out, node))
        return replace(self, score_on=score_on)

    @property
    def at_start(self) -> int:
        """Actors that are asked for at the start."""
        return max(1, self.most or 1) if self.first is None else self.first

    def __str__(self) -> str:
        """Return a description: ``at most 4 GPU actors``."""
        device = "GPU" if self.gpus else "CPU"
        number = self.at_start if self.most is None else self.most
        actors = f"{number} {device} actor{'' if number == 1 else 's'}"
        return (
            f"{actors}, and more on nodes that join" if self.most is None else f"at most {actors}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return what a run's summary says of it."""
        return {
            "most": self.most,
            "at_start": self.at_start,
            "cpus": self.cpus,
            "gpus": self.gpus,
            "left_out": list(self.left_out),
        }


def gpus_per_actor(
    gpus: str, each: float | None, present: float, possible: float | None, *, expected: bool = False
) -> tuple[float, int | None]:
    """Return the GPUs of one actor, and how many the run uses at most; None for as many as there are.

    Args:
        gpus: ``--gpus``: ``auto``, or a number.
        each: ``--gpus-per-actor``.
        present: GPUs of the cluster now.
        possible: GPUs that it could have; None if unknown.
        expected: Whether the output holds rows of a precision for GPUs.

    Raises:
        InputError: If the options contradict each other, or are no such numbers.
    """
    if gpus != "auto" and not gpus.isdecimal():
        raise InputError(
            argument="gpus",
            value=gpus,
            limit="auto, or a whole number of GPUs",
            fix="0 scores on CPUs",
        )
    number = None if gpus == "auto" else int(gpus)
    if each is not None and number is not None and bool(each) != bool(number):
        raise InputError(
            argument="gpus",
            value=gpus,
            limit=f"{'0' if number else 'at least 1'} with {{gpus_per_actor}} {each:g}",
            fix="leave one of them out",
        )
    if each is not None and each > 1 and each != int(each):
        raise InputError(
            argument="gpus_per_actor",
            value=each,
            limit="a whole number where it is above 1",
            fix="Ray shares one GPU between actors, but not several",
        )
    if each is None:
        wanted = bool(present or possible or expected) if number is None else bool(number)
        each = 1.0 if wanted else 0.0
    return each, number


def plan_actors(
    number: int | None,
    cpus: float | None,
    gpus: float,
    nodes: Sequence[Resources],
    possible: Sequence[Resources] | None = None,
    most_gpus: int | None = None,
) -> ActorPool:
    """Fill in the defaults: an actor for each GPU, or else for each CPU.

    Args:
        number: ``--num-actors``.
        cpus: ``--cpus-per-actor``.
        gpus: GPUs of each actor, as of :func:`gpus_per_actor`.
        nodes: Resources of each live node.
        possible: Resources of each node of the largest possible cluster; None if unknown: then nodes that
            join later are used, too.
        most_gpus: GPUs that are used at most; None uses all.
    """
    cpus = 1.0 if cpus is None else cpus
    if number is not None:
        return ActorPool(number, cpus, gpus)
    if gpus and most_gpus is not None:
        # Their nodes may be yet to come: assume that none has more than one actor's GPUs to spare.
        most = max(1, _fitting({"GPU": most_gpus}, 0.0, gpus))
        return ActorPool(most, cpus, gpus)
    now = sum(_fitting(node, 0.0 if gpus else cpus, gpus) for node in nodes)
    if possible is None:
        if gpus and (free := leaving_a_cpu(now, cpus, nodes)) < now:
            return ActorPool(free, cpus, gpus)  # a pool that may grow would take the last CPU
        return ActorPool(None, cpus, gpus, first=max(1, now))
    most = sum(_fitting(node, 0.0 if gpus else cpus, gpus) for node in possible)
    return ActorPool(max(1, now, most), cpus, gpus)


def leaving_a_cpu(actors: int, cpus: float, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many of some actors leave a CPU for the tasks that decode for them, at least 1."""
    have = sum(node.get("CPU", 0.0) for node in nodes)
    fitting = math.floor((have - 1) / cpus + _ROUNDING) if cpus else actors
    return max(1, min(actors, fitting))


def _fitting(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many actors fit on a node by its CPUs or GPUs; a fraction never spans two GPUs."""
    if not gpus:
        return math.floor(node.get("CPU", 0.0) / cpus + _ROUNDING)
    have = node.get("GPU", 0.0)
    if gpus > 1:
        return math.floor(have / gpus + _ROUNDING)
    return math.floor(have + _ROUNDING) * math.floor(1 / gpus + _ROUNDING)


def waiting_for(
    pool: ActorPool,
    nodes: Sequence[Mapping[str, Any]],
    types: Sequence[NodeType] = (),
    what: str = "a scoring actor",
) -> Waiting | None:
    """Return what an actor needs that no node has; None if a node has it.

    Args:
        pool: The pool.
        nodes: Of ``ray.nodes()``.
        types: Types of nodes with GPUs that an autoscaler could start.
        what: Name of an actor in the message.
    """
    there = [node for node in nodes if node["Alive"] and node["NodeID"] not in pool.left_out]
    alive = [node["Resources"] for node in there]
    fitting = [node for node in there if pool.fits(node["Resources"])]
    if any(pool.score_on.allows(node["Labels"]) for node in fitting):
        return _waiting_to_decode(pool, nodes)
    if fitting:
        return Waiting(f"a node with {pool.score_on}", f"{what} may run nowhere else")
    if pool.gpus and types and not any(node.get("GPU") for node in alive):
        states = [
            f"node type {each.name}, {each.running(nodes)} of {each.most} running" for each in types
        ]
        return Waiting(_gpus(pool), "; ".join(states))
    need = {kind: each for kind, each in pool.resources.items() if each}
    wanted = ", ".join(_amount(kind, each) for kind, each in need.items())
    most = {kind: max((node.get(kind, 0.0) for node in alive), default=0.0) for kind in need}
    have = ", ".join(_amount(kind, each) for kind, each in most.items())
    subject = _gpus(pool) if pool.gpus and not most["GPU"] else f"a node with {wanted}"
    return Waiting(subject, f"{what} needs {wanted}, and no node has more than {have}")


def _waiting_to_decode(pool: ActorPool, nodes: Sequence[Mapping[str, Any]]) -> Waiting | None:
    """Return what the tasks that decode for actors with GPUs need that no node has."""
    place = pool.decode_on
    if not pool.gpus or not str(place):
        return None
    need = {"CPU": 1.0, **place.resources}
    for node in nodes:
        has_room = all(node["Resources"].get(kind, 0.0) >= each for kind, each in need.items())
        if node["Alive"] and has_room and place.allows(node["Labels"]):
            return None
    return Waiting(f"a node with {place}", "images are decoded nowhere else (--decode-on)")


def _gpus(pool: ActorPool) -> str:
    number = pool.gpus * pool.at_start
    return f"{number:g} GPU{'' if number == 1 else 's'}"


def _amount(kind: str, each: float) -> str:
    return f"{each / 2**30:.1f} GiB of memory" if kind == "memory" else f"{each:g} {kind}"
