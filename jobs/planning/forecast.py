"""A forecast of a run from a measurement of its chain, by arithmetic: rate, bottleneck, time, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..prices import Prices
    from ..scoring.meter import Steady

__all__ = ["Fleet", "Forecast", "forecast"]

#: A driver may be busy for this share of a core; above it, blocks begin to wait for it.
_DRIVER_SHARE = 0.7
#: Waiting for images in this share of an actor's time leaves CPUs idle that more actors would use.
_WAITING = 0.25
_LEAST_CPUS = 0.1


@dataclass(frozen=True)
class Fleet:
    """What the run will have.

    Attributes:
        cpus: CPUs of the cluster.
        gpus: GPUs of the cluster.
        actors: Scoring actors.
        actor_cpus: CPUs of each.
        actor_gpus: GPUs of each; without one, it also fetches and decodes.
        block_rows: Rows of a block that comes to the driver.
    """

    cpus: float
    gpus: float
    actors: int
    actor_cpus: float
    actor_gpus: float
    block_rows: int

    @property
    def decoders(self) -> float:
        """CPUs that decode beside actors with GPUs."""
        return max(1.0, self.cpus - self.actors * self.actor_cpus)


@dataclass(frozen=True)
class Forecast:
    """A forecast of a run.

    Attributes:
        rows: Rows to do.
        images_per_second: In steady state.
        start_up: Seconds from the command to the steady state.
        seconds: Seconds of the whole run.
        bottleneck: Stage that limits it.
        stage_ms: Milliseconds of one worker for an image, by stage.
        decode_cpus_per_gpu: CPUs whose decoding keeps one GPU busy; None without GPUs.
        cpus_per_actor: Advised ``--cpus-per-actor``, where actors wait for images and leave CPUs idle;
            None to leave it.
        driver_ms: CPU milliseconds of the driver for 1,000 images.
        driver_limit: Images a second that one driver can take; infinite if it cost nothing measurable.
        drivers: Drivers, each with its shard of the manifest, that the rate needs.
        cost_per_million: Price of a million images in steady state; None without prices.
        cost: Price of the run; None without prices.
    """

    rows: int
    images_per_second: float
    start_up: float
    seconds: float
    bottleneck: str
    stage_ms: dict[str, float]
    decode_cpus_per_gpu: float | None
    cpus_per_actor: float | None
    driver_ms: float
    driver_limit: float
    drivers: int
    cost_per_million: float | None
    cost: float | None


def forecast(
    steady: Steady, fleet: Fleet, rows: int, start_up: float, prices: Prices | None
) -> Forecast:
    """Return what a run will do, after a sample of it was measured.

    On CPUs all actors were measured at work at once, so that what they cost each other is in their rate.
    With GPUs the slower of decoders and actors decides.

    Args:
        steady: What was measured.
        fleet: What the run will have.
        rows: Rows to do.
        start_up: Seconds until the sample's steady state.
        prices: To say what it costs.
    """
    each = {stage: seconds / steady.rows for stage, seconds in steady.stage_seconds.items()}
    slower = "fetch" if each["fetch"] > each["decode"] else "decode"
    decode_cpus = None
    if fleet.actor_gpus:
        # Two calls share a device and wait for each other, so that its seconds may count twice.
        of_actor = max(1 / max(each["model"], 1e-9), steady.images_per_second / steady.devices)
        decoding = each["fetch"] + each["decode"]
        decoded = fleet.decoders / max(decoding, 1e-9)
        rate = min(decoded, fleet.actors * of_actor)
        bottleneck = slower if decoded < fleet.actors * of_actor else "model"
        decode_cpus = decoding * of_actor / fleet.actor_gpus
    else:
        # Blocks that came late and all at once seem faster than their images were worked on.
        most = steady.devices / max(sum(each.values()), 1e-9)
        rate = min(steady.images_per_second, most) * fleet.actors / steady.devices
        bottleneck = max(each, key=lambda stage: each[stage])
    block = steady.driver_seconds / max(steady.blocks, 1e-9)
    driver_ms = 1e6 * block / fleet.block_rows
    limit = 1e6 / driver_ms if driver_ms > 0 else math.inf
    seconds = start_up + rows / rate
    hour = prices.hour({"CPU": fleet.cpus, "GPU": fleet.gpus}) if prices else None
    return Forecast(
        rows=rows,
        images_per_second=rate,
        start_up=start_up,
        seconds=seconds,
        bottleneck=bottleneck,
        stage_ms={stage: 1000 * value for stage, value in each.items()},
        decode_cpus_per_gpu=decode_cpus,
        cpus_per_actor=None if fleet.actor_gpus else _cpus_per_actor(each, fleet.actor_cpus),
        driver_ms=driver_ms,
        driver_limit=limit,
        drivers=max(1, math.ceil(rate / (_DRIVER_SHARE * limit))),
        cost_per_million=None if hour is None else hour / 3600 * 1e6 / rate,
        cost=None if hour is None else hour / 3600 * seconds,
    )


def _cpus_per_actor(each: dict[str, float], present: float) -> float | None:
    """Return the CPUs that an actor keeps busy, if it spends much of its time waiting for images."""
    waiting = each["fetch"] / sum(each.values())
    if waiting < _WAITING or present != 1:
        return None
    return max(_LEAST_CPUS, round(1 - waiting, 2))
