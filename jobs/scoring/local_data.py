"""Ray Data in a local Ray: without the processes that it starts for clusters and for a dashboard."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..local_ray import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster

__all__ = ["only_needed_actors"]


@contextmanager
def only_needed_actors(cluster: Cluster) -> Iterator[None]:
    """Let executions in this context start none of Ray Data's own actors that a local Ray does not need.

    One keeps statistics for the dashboard, one shares nodes between executions and asks for more, and one
    knows the node of each actor. Each is a process that wakes up a hundred times a second, and two of them
    import Ray Data before the first row is read. Ray Data has no option for that.

    Args:
        cluster: Where the executions run; if it is not a local Ray of this process, nothing changes.
    """
    if not cluster.is_local:
        yield
        return
    import ray
    from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler as autoscaler
    from ray.data._internal.execution.operators import actor_pool_map_operator as actors
    from ray.data._internal.stats import _StatsManager

    [node] = ray.nodes()
    with replaced(
        (_StatsManager, "gen_dataset_id_from_stats_actor", staticmethod(_dataset_id)),
        (_StatsManager, "register_dataset_to_stats_actor", staticmethod(_do_nothing)),
        (_StatsManager, "update_execution_metrics", staticmethod(_do_nothing)),
        (_StatsManager, "update_iteration_metrics", staticmethod(_do_nothing)),
        (autoscaler, "DefaultAutoscalingCoordinator", partial(_OneNode, node)),
        (actors, "get_or_create_actor_location_tracker", _OneLocation),
        (actors, "get_actor_locations", lambda ids: dict.fromkeys(ids, node["NodeID"])),
    ):
        yield


def _do_nothing(*_: object, **__: object) -> None:
    pass


def _dataset_id() -> str:
    return uuid.uuid4().hex


class _OneNode:
    """Stands for Ray Data's coordinator of nodes: reserves all resources for the only execution."""

    def __init__(self, node: Mapping[str, Any], **_: object) -> None:
        self._reserved = {node["NodeID"]: dict(node["Resources"])}

    def request_resources(self, **_: object) -> None:
        """Ask for no node: no autoscaler could start one."""

    def cancel_request(self) -> None:
        """Withdraw nothing, as nothing was asked for."""

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        """Return the resources of each node."""
        return self._reserved


class _OneLocation:
    """Stands for the actor that actors tell their node."""

    update_actor_location = SimpleNamespace(remote=_do_nothing)
