"""One run of `iqa score` or `iqa embed`, from the manifest to the audit."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from iqa_core import __version__
from iqa_core.fetching import DEFAULT_SCHEMES, Fetcher, redact
from iqa_core.images import decode_image
from iqa_core.manifest import open_manifest, plan_units
from iqa_core.output import Output, audit, describe_lost, output_schema
from iqa_core.schema import Status
from iqa_core.towers import load_towers

from .breaker import Breaker
from .pipeline import Cluster, Encoding, Outcome, plan_actors, run_pipeline
from .progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from iqa_core.output import Audit
    from iqa_core.scoring import PromptFeatures
    from iqa_core.towers import Precision, Towers

    from .config import ImageConfig
    from .pipeline import Actors

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
    width = towers.text.encode(["a photo"]).shape[-1]
    schema = output_schema(
        manifest,
        config.keep,
        pairs=prompts.names if prompts else (),
        embedding=width if embeddings else None,
        views=views,
    )
    with Cluster(config.address) as cluster:
        actors = plan_actors(
            config.num_actors, config.cpus_per_actor, config.gpus_per_actor, cluster.resources
        )
        precision = _precision(config.precision, actors)
        fingerprint = _fingerprint(config, kind, towers, prompts, precision, schema)
        output = Output(config.output, manifest, fingerprint)
        if not output.left_to_do(config.retry_errors):
            print(f"nothing to do: all {manifest.rows:,} rows are in {redact(config.output)}")
            result = audit(manifest, output.committed.rows)  # read a moment ago
            return conclude_unchanged(output, result, config.max_error_rate)
        cluster.start()
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
            print(f"{rows:,} rows to do{done}; {_describe(towers, precision, actors)}", flush=True)
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


def _precision(wanted: Precision, actors: Actors) -> Precision:
    if wanted != "auto":
        return wanted
    return "fp16" if actors.gpus else "fp32"


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


def _describe(towers: Towers, precision: Precision, actors: Actors) -> str:
    device = "GPU" if actors.gpus else "CPU"
    plural = "" if actors.most == 1 else "s"
    return f"{towers.name} in {precision}, at most {actors.most} {device} actor{plural}"


def _describe_outcome(outcome: Outcome) -> str:
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.statuses.items()))
    rate = outcome.rows / max(outcome.seconds, 1e-9)
    slowest = f"; bottleneck: {outcome.bottleneck}" if outcome.bottleneck else ""
    return f"{outcome.rows:,} rows in {duration(outcome.seconds)}, {rate:,.1f} rows/s{slowest}; {kinds}"


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
            f"--max-error-rate {max_error_rate:g} allows: see the status and error columns"
        )
        return _TOO_MANY_ERRORS
    return 0
