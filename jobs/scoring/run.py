"""One run of `iqa score` or `iqa embed`, from the manifest to the audit."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from iqa_core.clip.load import load_towers
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.images.decode import decode_image
from iqa_core.redaction import redact
from iqa_core.tables.audit import left_to_do
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output, stored_fingerprint
from iqa_core.tables.schema import ExtraColumn, output_schema, schema_with
from iqa_core.tables.sink import SinkWithColumns

from ..cluster import Cluster
from .conclude import conclude, conclude_without_work, options_as_json
from .driver import run_pipeline
from .fingerprint import fingerprint_of_run, fingerprint_of_tower
from .plan import ScoringPlan
from .policy import RunPolicy
from .pool import plan_actors
from .settings import StageSettings
from .visibility import check_visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from iqa_core.clip.encoder import Precision, Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.sink import OpenSink

    from ..config import ImageOptions
    from .pool import ActorPool

__all__ = ["run_images"]

#: Maximum number of notes on a manifest's folders and links that are printed.
_NOTES = 5


def run_images(
    config: ImageOptions,
    *,
    kind: str,
    prompts_of: Callable[[Towers], PromptFeatures] | None,
    embeddings: bool,
    views: int = 0,
    extra: Sequence[ExtraColumn] = (),
    open_sink: OpenSink = Output,
) -> int:
    """Encode the images of a manifest, score them if there are prompts, and commit the rows.

    Args:
        config: The options.
        kind: The subcommand, for the fingerprint.
        prompts_of: Returns the prompt features for the loaded towers; None only embeds.
        embeddings: Whether the output holds the image features.
        views: Degraded copies of each image whose features it holds, too.
        extra: Extra columns, computed from the finished rows.
        open_sink: Opens the place of the rows; by default part files in a folder.

    Returns:
        The exit status: 0, 1 if the audit failed, 3 if too many rows failed, 143 if stopped.

    Raises:
        InputError: If an option or the manifest is unusable; nothing was written then.
    """
    shard = Shard.of(config.shard) if config.shard else None
    manifest = open_manifest(config.manifest, config.keep).only(shard)
    _print_notes(manifest, config.manifest)
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
        pool = plan_actors(
            config.num_actors,
            config.cpus_per_actor,
            config.gpus_per_actor,
            cluster.nodes,
            cluster.possible_gpus,
        )
        stored = stored_fingerprint(config.output) if open_sink is Output else {}
        precision = _precision(config, pool, stored.get("precision"))
        tower = fingerprint_of_tower(config, towers, precision)
        fingerprint = fingerprint_of_run(kind, tower, prompts, schema_with(schema, extra))
        output = open_sink(config.output, manifest, fingerprint, config.lease_seconds)
        if extra:
            output = SinkWithColumns(output, extra)
        if not left_to_do(manifest, output.committed(), config.retry_errors):
            return conclude_without_work(output, manifest, config)
        cluster.start()
        if manifest.folder.is_local:
            first = manifest.folder.path(manifest.files[0].name)
            check_visible(first, f"--manifest {config.manifest}")
        preprocess = towers.preprocess if config.resolution == "model" else None
        decoder = partial(
            decode_image, preprocess=preprocess, mode=config.decode, max_pixels=config.max_pixels
        )
        spec = StageSettings(
            tower=towers.image,
            fetcher=_fetcher(config, manifest),
            preprocess=preprocess,
            decoder=decoder,
            precision=precision,
            batch_size=config.batch_size,
            width=width,
            prompts=prompts,
            schema=schema,
            views=views,
        )
        with output.start(options_as_json(config)):
            output.drop(config.retry_errors)
            done = output.committed().rows
            plan = ScoringPlan.of(manifest, config.keep, done, skip_damaged=config.skip_damaged)
            before = f", {len(done):,} done before" if len(done) else ""
            of_shard = f"{shard}: " if shard else ""
            print(
                f"{of_shard}{plan.rows:,} rows to do{before}; {towers.name} in {precision}, {pool}",
                flush=True,
            )
            if about_gpus := _about_gpus(pool, cluster):
                print(about_gpus, flush=True)
            policy = RunPolicy(config.commit_seconds, config.max_error_rate)
            outcome = run_pipeline(plan, spec, pool, output, policy)
            return conclude(output, outcome, pool, config.max_error_rate)


def _print_notes(manifest: Manifest, uri: str) -> None:
    for note in manifest.notes[:_NOTES]:
        print(f"--manifest {redact(uri)}: {note}", file=sys.stderr)
    if len(manifest.notes) > _NOTES:
        print(f"and {len(manifest.notes) - _NOTES:,} more such folders or links", file=sys.stderr)


def _fetcher(config: ImageOptions, manifest: Manifest) -> Fetcher:
    return Fetcher(
        manifest.folder.uri,
        config.timeout,
        config.retries,
        config.max_bytes,
        schemes=(*DEFAULT_SCHEMES, *config.allow_scheme),
        prefixes=config.allow_prefix,
    )


def _precision(config: ImageOptions, pool: ActorPool, begun: Precision | None) -> Precision:
    """Return the precision: the given one, else that of the output's rows, else the device's default."""
    if config.precision != "auto":
        return config.precision
    # GPUs may have come or gone since the output's first run, and rows of two precisions don't mix.
    return begun or ("fp16" if pool.gpus else "fp32")


def _about_gpus(pool: ActorPool, cluster: Cluster) -> str | None:
    """Return a note if the run waits for GPUs, leaves some unused, or has none in a cluster."""
    present = cluster.resources.get("GPU", 0.0)
    if pool.gpus and not present:
        some = (
            "" if cluster.possible_gpus is None else f", up to {cluster.possible_gpus:g} possible"
        )
        return f"0 GPUs now{some}: scoring begins once there is one"
    if present and not pool.gpus:
        return f"the cluster's {present:g} GPUs are not used (--gpus-per-actor 0)"
    if not present and len(cluster.nodes) > 1:
        return "no GPU in the cluster: scoring on CPUs; --gpus-per-actor 1 would wait for one"
    return None
