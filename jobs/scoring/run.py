"""One run of `iqa score` or `iqa embed`, from the manifest to the audit."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from iqa_core import __version__
from iqa_core.clip.load import load_towers
from iqa_core.errors import Status
from iqa_core.fetch.fetcher import DEFAULT_SCHEMES, Fetcher
from iqa_core.images.decode import decode_image
from iqa_core.redaction import redact
from iqa_core.tables.manifest import open_manifest, plan_units
from iqa_core.tables.output import Output, audit, begun_with, describe_lost, output_schema

from ..cluster import Cluster
from ..progress import duration
from .breaker import Breaker
from .driver import run_pipeline
from .pool import plan_actors
from .settings import Encoding
from .visibility import check_visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from iqa_core.clip.encoder import Precision, Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.output import Audit

    from ..config import ImageConfig
    from .driver import Outcome
    from .pool import Actors

__all__ = ["as_json", "conclude", "conclude_unchanged", "run_fingerprint", "run_images"]

#: Raised whenever the same options would give other numbers or columns.
_FORMAT = 1
_TOO_MANY_ERRORS = 3
#: What is said of a manifest's folders and links at most.
_NOTES = 5
_STOPPED = 143  # as a process that SIGTERM ended


def run_images(
    config: ImageConfig,
    manifest_uri: str,
    *,
    kind: str,
    prompts_of: Callable[[Towers], PromptFeatures] | None,
    embeddings: bool,
    views: int = 0,
) -> int:
    """Encode the images of a manifest, score them if there are prompts, and commit the rows.

    Args:
        config: The options.
        manifest_uri: ``--manifest``.
        kind: The subcommand, for the fingerprint.
        prompts_of: Gives the prompt features of the loaded towers; None only embeds.
        embeddings: Whether the output holds the image features.
        views: Degraded copies of each image whose features it holds, too.

    Returns:
        The exit status: 0, 1 if the audit failed, 3 if too many rows failed, 143 if stopped.

    Raises:
        InputError: If an option or the manifest is unusable; nothing was written then.
    """
    manifest = open_manifest(manifest_uri, config.keep)
    for note in manifest.notes[:_NOTES]:
        print(f"--manifest {redact(manifest_uri)}: {note}", file=sys.stderr)
    if len(manifest.notes) > _NOTES:
        print(f"and {len(manifest.notes) - _NOTES:,} more such folders or links", file=sys.stderr)
    towers = load_towers(config.model, config.resolution)
    prompts = prompts_of(towers) if prompts_of else None
    width = towers.image.width
    schema = output_schema(
        manifest,
        config.keep,
        pairs=prompts.names if prompts else (),
        embedding=width if embeddings else None,
        views=views,
    )
    with Cluster(config.address) as cluster:
        actors = plan_actors(
            config.num_actors,
            config.cpus_per_actor,
            config.gpus_per_actor,
            cluster.nodes,
            cluster.possible_gpus,
        )
        precision = _precision(config, actors)
        fingerprint = _fingerprint(config, kind, towers, prompts, precision, schema)
        output = Output(config.output, manifest, fingerprint)
        if not output.left_to_do(config.retry_errors):
            print(f"nothing to do: all {manifest.rows:,} rows are in {redact(config.output)}")
            result = audit(manifest, output.committed.rows)  # read a moment ago
            return conclude_unchanged(output, result, config.max_error_rate)
        cluster.start()
        if manifest.folder.is_local:
            check_visible(
                manifest.folder.path(manifest.files[0].name), f"--manifest {manifest_uri}"
            )
        preprocess = towers.preprocess if config.resolution == "model" else None
        encoding = Encoding(
            fetcher=Fetcher(
                manifest.folder.uri,
                config.timeout,
                config.retries,
                config.max_bytes,
                schemes=(*DEFAULT_SCHEMES, *config.allow_scheme),
                prefixes=config.allow_prefix,
            ),
            preprocess=preprocess,
            decoder=partial(
                decode_image,
                preprocess=preprocess,
                mode=config.decode,
                max_pixels=config.max_pixels,
            ),
            precision=precision,
            batch_size=config.batch_size,
            width=width,
            prompts=prompts,
            schema=schema,
            views=views,
        )
        with output.writing(as_json(config), config.lease_seconds):
            output.drop(config.retry_errors)
            before = len(output.committed.rows)
            rows = manifest.rows - before
            done = f", {before:,} done before" if before else ""
            print(f"{rows:,} rows to do{done}; {towers.name} in {precision}, {actors}", flush=True)
            if about_gpus := _about_gpus(actors, cluster):
                print(about_gpus, flush=True)
            units = list(plan_units(manifest, output.committed.rows))
            breaker = Breaker(manifest.folder.uri) if config.max_error_rate < 1 else None
            outcome = run_pipeline(
                manifest, config.keep, units, rows, towers.image, encoding, actors, output,
                config.commit_seconds, breaker, config.skip_damaged,
            )  # fmt: skip
            return conclude(output, outcome, actors, config.max_error_rate)


def as_json(config: ImageConfig) -> dict[str, Any]:
    """Return the options as they are kept beside the output: without passwords or signatures."""
    return {name: _redacted(value) for name, value in asdict(config).items()}


def _redacted(value: Any) -> Any:  # noqa: ANN401 - any option's
    if isinstance(value, tuple):
        return [_redacted(one) for one in value]
    return redact(value) if isinstance(value, str) else value


def conclude(output: Output, outcome: Outcome, actors: Actors | None, max_error_rate: float) -> int:
    """Audit an output, write its summary, say what was done, and return the exit status."""
    result = output.audit()
    output.finish(_summary(outcome, output, result, actors))
    print(_describe_outcome(outcome))
    if outcome.out_of_memory:
        print(
            f"the device's memory was full {outcome.out_of_memory:,} times, and batches were halved: a "
            "smaller --batch-size avoids that"
        )
    if outcome.stopped:
        print(f"stopped: {result}; the same command goes on from here")
        return _STOPPED
    if outcome.broken:
        print(
            f"{outcome.broken}. Stopped: {result}; once it is over, the same command goes on, with "
            "--retry-errors for rows that failed before this was noticed (--max-error-rate 1 goes on "
            "regardless)"
        )
        return _TOO_MANY_ERRORS
    return conclude_unchanged(output, result, max_error_rate)


def _precision(config: ImageConfig, actors: Actors) -> Precision:
    """Return the arithmetic: as asked for, else as the output was begun, else what suits the device."""
    if config.precision != "auto":
        return config.precision
    # GPUs may have come or gone since; rows of two precisions don't mix.
    begun: Precision | None = begun_with(config.output).get("precision")
    return begun or ("fp16" if actors.gpus else "fp32")


def _about_gpus(actors: Actors, cluster: Cluster) -> str | None:
    """Return what a person should know of the GPUs, if they are not simply there."""
    present = cluster.resources.get("GPU", 0.0)
    if actors.gpus and not present:
        some = (
            "" if cluster.possible_gpus is None else f", up to {cluster.possible_gpus:g} possible"
        )
        return f"0 GPUs now{some}: scoring begins once there is one"
    if present and not actors.gpus:
        return f"the cluster's {present:g} GPUs are not used (--gpus-per-actor 0)"
    if not present and len(cluster.nodes) > 1:
        return "no GPU in the cluster: scoring on CPUs; --gpus-per-actor 1 would wait for one"
    return None


def _fingerprint(
    config: ImageConfig,
    kind: str,
    towers: Towers,
    prompts: PromptFeatures | None,
    precision: Precision,
    schema: Any,  # noqa: ANN401 - pyarrow is untyped
) -> dict[str, Any]:
    tower = {
        "model": config.model,
        "weights": towers.digest,
        "quick_gelu": towers.quick_gelu,
        "preprocess": asdict(towers.preprocess),
        "resolution": config.resolution,
        "decode": config.decode,
        "precision": precision,
    }
    return run_fingerprint(kind, tower, prompts, schema)


def run_fingerprint(
    kind: str,
    tower: Mapping[str, Any],
    prompts: PromptFeatures | None,
    schema: Any,  # noqa: ANN401 - pyarrow is untyped
) -> dict[str, Any]:
    """Return what rows of one output have in common: anything that changes a number or a column."""
    scoring = {}
    if prompts is not None:
        scoring = {
            "pairs": list(prompts.names),
            "logit_scale": prompts.logit_scale,
            "prompts": prompts.digest,
        }
    packages = ("open_clip_torch", "pillow", "torch")
    return {
        "kind": kind,
        "format": _FORMAT,
        **tower,
        **scoring,
        "columns": [f"{field.name}: {field.type}" for field in schema],
        "versions": {name: version(name) for name in packages},
    }


def _describe_outcome(outcome: Outcome) -> str:
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.statuses.items()))
    rate = outcome.rows / max(outcome.seconds, 1e-9)
    slowest = f"; bottleneck: {outcome.bottleneck}" if outcome.bottleneck else ""
    line = f"{outcome.rows:,} rows in {duration(outcome.seconds)}, {rate:,.1f} rows/s{slowest}; {kinds}"
    kinds_of_device = Counter(device.partition(" of ")[0] for device in outcome.devices)
    devices = ", ".join(f"{count} x {name}" for name, count in kinds_of_device.most_common())
    return f"{line}; scored on {devices}" if devices else line


def _summary(
    outcome: Outcome, output: Output, result: Audit, actors: Actors | None
) -> dict[str, Any]:
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "complete": result.passed,
        "rows": len(output.committed.rows),
        "statuses": dict(output.committed.statuses),
        "lost_rows": output.committed.statuses[Status.UNREADABLE],
        "parts": len(output.committed.parts),
        "audit": asdict(result),
        "last_run": {
            "rows": outcome.rows,
            "seconds": round(outcome.seconds, 3),
            "stopped": outcome.stopped,
            "outage": outcome.broken,
            "out_of_memory": outcome.out_of_memory,
        },
        "images_per_second": round(outcome.rows / max(outcome.seconds, 1e-9), 2),
        "seconds": round(outcome.seconds, 3),
        "stage_seconds": {name: round(s, 3) for name, s in outcome.stage_seconds.items()},
        "bottleneck": outcome.bottleneck,
        "actors": asdict(actors) if actors else None,
        "devices": outcome.devices,
        "nodes_left_out": list(outcome.left_out),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.cuda.device_count()} GPUs",
        "version": __version__,
    }


def conclude_unchanged(output: Output, result: Audit, max_error_rate: float) -> int:
    """Say what an audit found, and return the exit status: 0, 1 or 3."""
    print(result)
    if not result.passed:
        return 1
    if lost := describe_lost(output.committed.statuses):
        print(lost)
    total = sum(output.committed.statuses.values())
    failed = total - output.committed.statuses["ok"]
    if total and failed / total > max_error_rate:
        print(
            f"{failed:,} of {total:,} rows could not be scored ({failed / total:.1%}), more than "
            f"--max-error-rate {max_error_rate:g} allows: see the status and error columns. Exit status "
            f"{_TOO_MANY_ERRORS}: the output is complete all the same"
        )
        return _TOO_MANY_ERRORS
    return 0
