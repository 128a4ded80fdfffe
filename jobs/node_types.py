"""Node types of a cluster's autoscaler: which nodes it could have, and what they hold.

They are in Ray's own store where an autoscaler writes them there, and in the configuration that ``ray up``
leaves on the head node. KubeRay shows them to neither; ``--gpus N`` then says what may come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Autoscaler", "NodeType", "Resources", "autoscaler_of", "find_autoscaler"]

Resources = dict[str, float]

#: Where `ray up` leaves a cluster's configuration on the head node.
_BOOTSTRAP = "~/ray_bootstrap_config.yaml"
#: The label in which Ray keeps the node type's name.
_TYPE_LABEL = "ray.io/node-group"
#: Nodes of a type without a limit: a plan needs a number.
_WITHOUT_LIMIT = 1000


@dataclass(frozen=True)
class NodeType:
    """One type of nodes that an autoscaler starts.

    Attributes:
        name: Its name, such as ``gpu``.
        resources: Resources of one node.
        most: Maximum number of nodes.
        labels: Labels of each node.
    """

    name: str
    resources: Resources
    most: int
    labels: Mapping[str, str] = field(default_factory=dict)

    def running(self, nodes: Sequence[Mapping[str, Any]]) -> int:
        """Return how many nodes of this type are alive.

        Args:
            nodes: Of ``ray.nodes()``. A node without the name of its type counts where it has this type's
                CPUs and GPUs.
        """
        return sum(1 for node in nodes if node["Alive"] and self._is_type_of(node))

    def _is_type_of(self, node: Mapping[str, Any]) -> bool:
        name = node.get("Labels", {}).get(_TYPE_LABEL)
        if name:
            return bool(name == self.name)
        return all(
            node["Resources"].get(kind, 0.0) == self.resources.get(kind, 0.0)
            for kind in ("CPU", "GPU")
        )


@dataclass(frozen=True)
class Autoscaler:
    """What an autoscaler could start.

    Attributes:
        types: The types of its worker nodes.
        most: Maximum number of worker nodes of all types together.
        head: Resources of the head node, which is there.
    """

    types: tuple[NodeType, ...]
    most: int
    head: Resources = field(default_factory=dict)

    def nodes(self, kind: str) -> list[Resources]:
        """Return the resources of each node of the largest possible cluster.

        Args:
            kind: The resource of which it has as much as possible.
        """
        workers = [
            dict(each.resources) for each in self.types for _ in range(min(each.most, self.most))
        ]
        workers.sort(key=lambda node: node.get(kind, 0.0), reverse=True)
        return [dict(self.head), *workers[: self.most]]

    @property
    def gpus(self) -> float:
        """GPUs of the largest possible cluster."""
        return sum(node.get("GPU", 0.0) for node in self.nodes("GPU"))

    def with_gpus(self) -> list[NodeType]:
        """Return the types whose nodes have GPUs."""
        return [each for each in self.types if each.resources.get("GPU") and each.most]


def find_autoscaler() -> Autoscaler | None:
    """Return the autoscaler of the cluster that this process is connected to.

    Returns:
        None if there is none, or what its nodes have is known only once they run, as on premises.
    """
    import yaml  # Ray's own

    if found := _reported():
        return found
    try:
        text = Path(_BOOTSTRAP).expanduser().read_text(encoding="utf-8")
        found = autoscaler_of(yaml.safe_load(text))
    except (OSError, RuntimeError, ValueError, yaml.YAMLError):
        return None
    return found if all(each.resources for each in found.types) else None


def autoscaler_of(config: Mapping[str, Any]) -> Autoscaler:
    """Return the autoscaler of a cluster of `ray up`.

    Args:
        config: A cluster's configuration, such as cluster.yaml.

    Raises:
        ValueError: If it is not such a configuration.
    """
    try:
        most = int(config.get("max_workers", 2))  # Ray's default
        kinds = {
            name: NodeType(
                name,
                {key: float(value) for key, value in kind.get("resources", {}).items()},
                int(kind.get("max_workers", most)),
                dict(kind.get("labels", {})),
            )
            for name, kind in config["available_node_types"].items()
        }
        head = kinds.pop(config["head_node_type"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no cluster configuration: {error!r}") from error
    return Autoscaler(tuple(kinds.values()), most, head.resources)


def _reported() -> Autoscaler | None:
    """Return the autoscaler whose node types are in Ray's store."""
    import ray

    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    types = tuple(
        NodeType(
            group.name,
            {key: float(value) for key, value in group.resources.items()},
            group.max_count if group.max_count >= 0 else _WITHOUT_LIMIT,
        )
        for group in groups
        if group.resources
    )
    return (
        Autoscaler(types, min(_WITHOUT_LIMIT, sum(each.most for each in types))) if types else None
    )
