"""Forecast a run: measure a sample of the manifest on this cluster, and say rate, time and cost.

Takes the options of `iqa score` and writes nothing. A random sample of the rows that are left to do goes
through the same Ray actors and tasks, all of them at work at once, as in the run itself.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from iqa_core.redaction import redact

from .config import ScoreOptions
from .extra_columns import extra_columns
from .options import option
from .prices import Prices
from .progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .planning.forecast import Forecast
    from .planning.measure import Measured

__all__ = ["Config", "command_line", "describe", "run", "too_many_errors"]


@dataclass(frozen=True, kw_only=True)
class Config(ScoreOptions):
    """Options of ``iqa plan``."""

    output: str = option(
        "",
        help="folder that the run will write to: rows that it holds already are done",
        metavar="O",
        path=True,
    )
    sample: int | None = option(
        None,
        help="rows to measure at most (default: 1000, or 256 for each actor if that is more)",
        metavar="N",
        minimum=1,
    )
    measure_seconds: float = option(
        20.0, help="seconds of the steady state to measure at most", metavar="S", above=0
    )
    seed: int = option(0, help="of the random sample", metavar="N", minimum=0)
    json: bool = option(False, help="print the forecast as JSON")


def run(config: Config) -> int:
    """Measure and forecast; return the exit status."""
    from iqa_core.images.crops import check_crops

    from .planning.forecast import forecast
    from .planning.measure import PlanOptions, measure

    check_crops(config.crops, config.resolution)
    options = PlanOptions(
        rows=config.sample,
        seconds=config.measure_seconds,
        seed=config.seed,
        crops=config.crops,
        embeddings=config.embeddings,
        extra=tuple(extra_columns(config)),
    )
    measured = measure(config, config, options)
    if measured is None:
        print(f"nothing to do: all rows are in {redact(config.output)}")
        return 0
    prices = Prices.of(config.cpu_price, config.gpu_price)
    found = forecast(measured.steady, measured.fleet, measured.left, measured.start_up, prices)
    advised: dict[str, Any] = {}
    if found.cpus_per_actor is not None:
        advised["cpus_per_actor"] = found.cpus_per_actor
    if found.drivers > 1 and config.shard is None:
        advised["shard"] = f"0/{found.drivers}"
    command = command_line(config, advised)
    if config.json:
        document = {"forecast": asdict(found), "measured": asdict(measured), "command": command}
        print(json.dumps(_finite(document), indent=2))
    else:
        lines = describe(measured, found)
        if line := too_many_errors(measured.statuses, config.max_error_rate):
            lines.append(line)
        print("\n".join([*lines, command]))
    return 0


def command_line(config: Config, advised: Mapping[str, Any]) -> str:
    """Return the command of the run that was planned.

    Args:
        config: The options of the plan.
        advised: Further options by field.
    """
    planned = {field.name for field in fields(ScoreOptions)}
    words = ["iqa", "score"]
    for field in sorted(fields(config), key=lambda field: field.default is not MISSING):
        value = advised.get(field.name, getattr(config, field.name))
        if field.name == "output":
            value = value or "OUTPUT"
        elif field.name not in planned or value == field.default:
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{flag}", *(_word(each) for each in values)]
    return shlex.join(words)


def _word(value: object) -> str:
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return redact(str(value))


def describe(measured: Measured, found: Forecast) -> list[str]:
    """Return the forecast as lines."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(measured.statuses.items()))
    steady, fleet = measured.steady, measured.fleet
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in found.stage_ms.items())
    device = "GPU" if fleet.actor_gpus else "CPU"
    lines = [
        f"{sum(measured.statuses.values()):,} of {measured.drawn:,} sampled rows: {kinds}",
        f"ms an image: {stages}; bottleneck: {found.bottleneck}",
        f"{found.images_per_second:,.1f} images/s in steady state by {fleet.actors} {device} "
        f"actor{'' if fleet.actors == 1 else 's'}, after {duration(found.start_up)} of start-up",
        f"{found.rows:,} rows to do: {duration(found.seconds)}",
    ]
    if measured.is_rough:
        lines.append("too few blocks for a steady state: the rate follows from busy seconds only")
    if steady.devices < fleet.actors:
        lines.append(f"only {steady.devices} of {fleet.actors} actors took part: more --sample")
    if measured.most_actors is not None and measured.most_actors > fleet.actors:
        lines.append(
            f"for the nodes that are here now, {measured.nodes}; the run asks for {measured.most_actors} "
            "actors, and more nodes make it faster"
        )
    if found.cost is not None and found.cost_per_million is not None:
        lines.append(
            f"cost: {_money(found.cost_per_million)} per million images, {_money(found.cost)} in total"
        )
    if found.decode_cpus_per_gpu is not None:
        lines.append(f"each GPU needs {found.decode_cpus_per_gpu:.1f} CPUs to decode for it")
    if found.cpus_per_actor is not None:
        lines.append("actors wait for images to arrive: more of them on the same CPUs would help")
    if measured.bf16_is_faster and found.bottleneck == "model":
        lines.append(
            "this processor has AMX, so bf16 may be several times as fast: compare a plan with --precision "
            "bf16 (docs/sizing.md says what it changes)"
        )
    if found.driver_ms:
        lines.append(
            f"driver: {found.driver_ms:.1f} ms of CPU for 1,000 images beside writing, so at most "
            f"{found.driver_limit:,.0f} images/s"
        )
    if found.drivers > 1:
        lines.append(
            f"that is more than one driver takes: run {found.drivers} of them with --shard 0/"
            f"{found.drivers} to {found.drivers - 1}/{found.drivers}"
        )
    return lines


def too_many_errors(statuses: Mapping[str, int], limit: float) -> str | None:
    """Return what a run would say of such a share of failed rows; None if it is allowed."""
    rows = sum(statuses.values())
    failed = rows - statuses.get("ok", 0)
    if failed <= limit * rows:
        return None
    return (
        f"{failed / rows:.1%} of the sample could not be scored, more than --max-error-rate {limit:g} "
        "allows: the run would end with status 3, or stop in an outage"
    )


def _money(value: float) -> str:
    """Return an amount with two decimals, and small ones with two digits."""
    if value >= 1 or not value:
        return f"{value:,.2f}"
    return f"{value:.{1 - math.floor(math.log10(value))}f}"


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON document with null for what is infinite."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isinf(value) else value
