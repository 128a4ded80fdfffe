"""The actors and the precision of a run, from its options and from what the cluster has and could have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_core.errors import InputError

from .placement import DECODE_BYTES, READ_BYTES, actor_bytes, placement_of
from .pool import gpus_per_actor, leaving_a_cpu, plan_actors

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Precision

    from ..cluster import Cluster
    from ..config import ImageOptions
    from .pool import ActorPool

__all__ = ["about_gpus", "has_amx", "plan_pool", "precision_of", "with_memory"]

_FOR_GPUS = ("fp16", "bf16")


def plan_pool(config: ImageOptions, cluster: Cluster, begun: str | None = None) -> ActorPool:
    """Return the scoring actors of a run.

    Args:
        config: The options.
        cluster: The cluster.
        begun: Precision of the output's existing rows, where it is not given by an option.

    Raises:
        InputError: If an option is unusable, or no node of this machine could ever hold an actor.
    """
    present = cluster.resources.get("GPU", 0.0)
    each, number = gpus_per_actor(
        config.gpus,
        config.gpus_per_actor,
        present,
        cluster.possible_gpus,
        # A run on spot machines may resume while it has none.
        expected=begun in _FOR_GPUS and not cluster.is_local,
    )
    possible = cluster.nodes if cluster.is_local else None
    if cluster.autoscaler:
        possible = cluster.autoscaler.nodes("GPU" if each else "CPU")
    pool = plan_actors(
        config.num_actors, config.cpus_per_actor, each, cluster.nodes, possible, number
    )
    pool = replace(
        pool,
        score_on=placement_of("score", config.score_on, "score_on", cluster),
        decode_on=placement_of("decode", config.decode_on, "decode_on", cluster),
    )
    nodes = zip(cluster.nodes, cluster.labels, strict=True)
    if cluster.is_local and not any(
        pool.fits(node) and pool.score_on.allows(labels) for node, labels in nodes
    ):
        need = ", ".join(f"{amount:g} {kind}" for kind, amount in pool.resources.items() if amount)
        need += "".join(f", {key}={value}" for key, value in pool.score_on.labels.items())
        have = ", ".join(f"{amount:g} {kind}" for kind, amount in cluster.resources.items())
        raise InputError(
            f"a scoring actor needs {need}, and this machine has {have}: leave --gpus, --gpus-per-actor, "
            "--cpus-per-actor and --score-on out, or connect to a cluster with --address"
        )
    if cluster.is_local and pool.gpus:
        pool = _with_a_cpu_left(pool, cluster, chosen=config.num_actors)
    return pool


def _with_a_cpu_left(pool: ActorPool, cluster: Cluster, chosen: int | None) -> ActorPool:
    """Return a pool that leaves a CPU of this machine to the tasks that decode for its actors.

    Raises:
        InputError: If one actor, or the number that was chosen, takes them all.
    """
    wanted = chosen or pool.at_start
    most = leaving_a_cpu(wanted, pool.cpus, cluster.nodes)
    cpus = cluster.resources["CPU"]
    if pool.cpus * most > cpus - 1:
        raise InputError(
            argument="cpus_per_actor",
            value=pool.cpus,
            limit=f"at most {cpus - 1:g} here, as one of this machine's {cpus:g} CPUs decodes",
            fix="lower it",
        )
    if chosen is not None and most < chosen:
        raise InputError(
            argument="num_actors",
            value=chosen,
            limit=f"at most {most} here, as one of this machine's {cpus:g} CPUs decodes",
            fix="lower it, or {cpus_per_actor}",
        )
    return replace(pool, most=most)


def with_memory(pool: ActorPool, cluster: Cluster, tower: object) -> ActorPool:
    """Return a pool whose workers state their memory, so that Ray places no more than a node can hold.

    Not on a Ray of this process, which counts only the memory that is free when it starts. Nor where a
    node, or a type of nodes, has no room for one worker of each stage or does not say so: it would do
    nothing then, and an autoscaler would not start it.

    Args:
        pool: The pool.
        cluster: The cluster.
        tower: The image tower.
    """
    memory = actor_bytes(tower, pool.gpus)
    nodes = [*cluster.nodes, *(cluster.autoscaler.nodes("CPU") if cluster.autoscaler else ())]
    workers = [node for node in nodes if node.get("CPU")]
    each = memory + READ_BYTES + DECODE_BYTES
    roomy = all(node.get("memory", 0.0) >= each for node in workers)
    return pool if cluster.is_local or not roomy else replace(pool, memory=memory)


def precision_of(config: ImageOptions, pool: ActorPool, begun: Precision | None) -> Precision:
    """Return the precision of the image tower.

    Args:
        config: The options.
        pool: The scoring actors.
        begun: Precision of the output's existing rows, or the one that is asked for.
    """
    return begun or ("fp16" if pool.gpus else "fp32")


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this machine's processor is known to compute several times as fast in bf16 as in fp32.

    Args:
        cpuinfo: Linux' description of the processor; elsewhere there is none, and nothing is known.
    """
    try:
        return "amx_bf16" in cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return False


def about_gpus(pool: ActorPool, cluster: Cluster) -> str | None:
    """Return a note if the run waits for GPUs, leaves some unused, or has none in a cluster."""
    present = cluster.resources.get("GPU", 0.0)
    possible = cluster.possible_gpus
    if pool.gpus and not present:
        some = "" if possible is None else f", up to {possible:g} possible"
        return f"0 GPUs now{some}: scoring begins once there is one"
    if present and not pool.gpus:
        return f"the cluster's {present:g} GPUs are not used (--gpus 0)"
    if possible and not pool.gpus:
        return f"the {possible:g} GPUs that the cluster could start are not used (--gpus 0)"
    if not present and len(cluster.nodes) > 1:
        return "no GPU in the cluster: scoring on CPUs; --gpus N would wait for some"
    return None
