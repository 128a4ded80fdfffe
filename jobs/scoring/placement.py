"""Where tasks and actors may run: labels of nodes, custom resources, and memory.

Without options, images are decoded on nodes without GPUs while those have free CPUs, and then on the free
CPUs of nodes with GPUs. A node whose label ``iqa-stage`` is ``decode`` or ``score`` is preferred for that
stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..cluster import Cluster

__all__ = [
    "DECODE_BYTES",
    "READ_BYTES",
    "STAGE_LABEL",
    "Placement",
    "actor_bytes",
    "placement_of",
]

#: Nodes whose label has a stage's name are preferred for it.
STAGE_LABEL = "iqa-stage"

_NODE_ID = "ray.io/node-id"
_ACCELERATOR = "ray.io/accelerator-type"
_MIB = 1 << 20
#: Memory of a read task: one block of at most 128 MiB as Parquet pages, as a table and as a message.
READ_BYTES = 512 * _MIB
#: Memory of a decode task: encoded bytes and the pixels of two blocks, in a process without model code.
DECODE_BYTES = 768 * _MIB
#: Memory of a scoring actor without its weights: torch and what it allocates, and two calls of pixels.
_ACTOR_BYTES = 1024 * _MIB
#: Beside that, what a process with CUDA holds in the host's memory.
_CUDA_BYTES = 1024 * _MIB


@dataclass(frozen=True)
class Placement:
    """Where the workers of one stage may run.

    Attributes:
        labels: Labels that a node must have, in the syntax of Ray's label selectors.
        preferred: Labels of nodes that are taken first.
        resources: Custom resources that each worker takes.
        left_out: Ids of nodes that are not used.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    preferred: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def ray_options(self) -> dict[str, Any]:
        """Return the options of Ray that place a worker so; none if it may run anywhere."""
        required = dict(self.labels)
        if self.left_out:
            required[_NODE_ID] = _none_of(self.left_out)
        options: dict[str, Any] = {}
        if required:
            options["label_selector"] = required
        if self.preferred:
            options["label_selector"] = {**required, **self.preferred}
            options["fallback_strategy"] = [{"label_selector": required}]
        if self.resources:
            options["resources"] = dict(self.resources)
        return options

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Return whether a node with these labels may run a worker, as Ray's label selectors decide."""
        return all(_matches(labels.get(key), wanted) for key, wanted in self.labels.items())

    def __str__(self) -> str:
        """Return what a node needs for it, such as ``market=spot, 1 decode``; empty if nothing."""
        words = [f"{key}={value}" for key, value in self.labels.items()]
        return ", ".join([*words, *(f"{each:g} {name}" for name, each in self.resources.items())])


def _matches(value: str | None, wanted: str) -> bool:
    """Return whether a label's value is wanted: ``v``, ``!v``, ``in(v, w)`` or ``!in(v, w)``."""
    is_negated = wanted.startswith("!")
    wanted = wanted.removeprefix("!")
    values = [wanted]
    if wanted.startswith("in(") and wanted.endswith(")"):
        values = [each.strip() for each in wanted[3:-1].split(",")]
    return (value in values) != is_negated


def placement_of(stage: str, words: Iterable[str], argument: str, cluster: Cluster) -> Placement:
    """Return where a stage's workers may run.

    Args:
        stage: ``decode`` or ``score``.
        words: The option's values: ``KEY=VALUE`` is a label, ``NAME:AMOUNT`` a custom resource. Without
            any, nodes that the cluster labels for the stage are preferred.
        argument: The option's field.
        cluster: The cluster.

    Raises:
        InputError: If a word is neither.
    """
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    for word in words:
        label, is_label, value = word.partition("=")
        name, _, amount = word.rpartition(":")
        if is_label and label and value:
            labels[label] = value
        elif name and _is_amount(amount):
            resources[name] = float(amount)
        else:
            raise InputError(
                argument=argument,
                value=word,
                limit="KEY=VALUE, a label of nodes, or NAME:AMOUNT, a custom resource",
                fix="`ray list nodes --detail` shows what the nodes have",
            )
    preferred = {} if labels or resources else _preferred(stage, cluster)
    return Placement(labels, preferred, resources)


def _preferred(stage: str, cluster: Cluster) -> dict[str, str]:
    """Return labels of the nodes that are taken first for a stage."""
    types = cluster.autoscaler.types if cluster.autoscaler else ()
    labels = [*cluster.labels, *(each.labels for each in types)]
    if any(each.get(STAGE_LABEL) == stage for each in labels):
        return {STAGE_LABEL: stage}
    nodes = list(zip(cluster.labels, cluster.nodes, strict=True))
    without_gpus = [node for node in cluster.nodes if node.get("CPU") and not node.get("GPU")]
    without_gpus += [each.resources for each in types if not each.resources.get("GPU")]
    if stage != "decode" or cluster.is_local or not without_gpus:
        return {}
    # A node has its accelerator's label only if Ray knows the accelerator.
    preferred = {_ACCELERATOR: _none_of(_known_accelerators())}
    if gpus := [each[_NODE_ID] for each, node in nodes if node.get("GPU") and _NODE_ID in each]:
        preferred[_NODE_ID] = _none_of(gpus)
    return preferred


def _none_of(values: Iterable[str]) -> str:
    return f"!in({','.join(values)})"


def _known_accelerators() -> list[str]:
    from ray.util import accelerators

    names = {value for name, value in vars(accelerators).items() if name.isupper()}
    return sorted(name for name in names if isinstance(name, str))


def _is_amount(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def actor_bytes(tower: object, gpus: float) -> int:
    """Return the memory that a scoring actor needs on its node, in bytes.

    Args:
        tower: The image tower; what its parameters take is known where it is a torch module.
        gpus: GPUs of the actor.
    """
    parameters = getattr(tower, "parameters", None)
    weights = sum(each.nbytes for each in parameters()) if parameters else 0
    return _ACTOR_BYTES + weights + (_CUDA_BYTES if gpus else 0)
