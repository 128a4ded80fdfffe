"""Checks that all nodes see a local path: on a cluster it must be on a shared filesystem."""

from __future__ import annotations

import os

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from iqa_core.errors import InputError

from ..ray_errors import node_name

__all__ = ["check_visible"]

_PROBE_SECONDS = 60.0


def check_visible(path: str, argument: str) -> None:
    """Check that each node sees a path of this machine.

    Args:
        path: Absolute path, which this process sees.
        argument: How the user gave it, such as ``--manifest photos.parquet``.

    Raises:
        InputError: If a node does not see it.
    """
    here = ray.get_runtime_context().get_node_id()
    probes = {
        node_name(node["NodeManagerAddress"], node["NodeID"]): _exists.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(path)
        for node in ray.nodes()
        # A node without CPUs takes no task of ours.
        if node["Alive"] and node["NodeID"] != here and node["Resources"].get("CPU")
    }
    for name, probe in probes.items():
        try:
            seen = ray.get(probe, timeout=_PROBE_SECONDS)
        except ray.exceptions.RayError:
            continue  # gone or busy: if it lacks the path, its tasks will fail and say so
        if not seen:
            raise InputError(
                f"{argument}: {name} can't see {path}: put it on a filesystem that all nodes "
                "share, or on an object store such as s3://"
            )


@ray.remote(num_cpus=0, max_retries=0)
def _exists(path: str) -> bool:
    return os.path.exists(path)
