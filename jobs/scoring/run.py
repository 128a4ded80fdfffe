"""One run of `iqa score` or `iqa embed`, from the manifest to the audit.

What is left to do follows from the model's facts (:mod:`iqa_core.clip.facts`). Only a run with something to
do loads the model, and it starts Ray meanwhile; torch and Ray are imported then.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from iqa_core.clip.embedded import lightest_towers
from iqa_core.clip.facts import ModelFacts, known_facts, remember_facts, with_absolute_file
from iqa_core.redaction import redact
from iqa_core.tables.audit import left_to_do
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output, stored_fingerprint
from iqa_core.tables.schema import ExtraColumn, check_extra, output_schema, schema_with
from iqa_core.tables.sink import SinkWithColumns

from ..background import Background
from ..cluster import Cluster
from ..local_paths import refuse_local_paths
from .conclude import conclude, conclude_without_work, options_as_json
from .fingerprint import fingerprint_of_run, fingerprint_of_tower
from .gpu_options import check_gpu_options
from .local_data import only_needed_actors
from .plan import ScoringPlan
from .policy import RunPolicy
from .prompts import Prompts, read_prompts
from .resources import about_gpus, plan_pool, precision_of, with_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from iqa_core.clip.encoder import Precision, Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.sink import OpenSink, Sink

    from ..config import ImageOptions, PromptOptions
    from .pool import ActorPool

__all__ = ["run_images"]

#: Maximum number of notes on a manifest's folders and links that are printed.
_NOTES = 5


def run_images(
    config: ImageOptions,
    *,
    kind: str,
    prompts: PromptOptions | None,
    embeddings: bool,
    views: int = 0,
    crops: int = 1,
    extra: Sequence[ExtraColumn] = (),
    open_sink: OpenSink = Output,
) -> int:
    """Encode the images of a manifest, score them if there are prompts, and commit the rows.

    Args:
        config: The options.
        kind: The subcommand, for the fingerprint.
        prompts: The options of the prompts; None only embeds.
        embeddings: Whether the output holds the image features.
        views: Degraded copies of each image whose features it holds, too.
        crops: Views of each image that are scored.
        extra: Extra columns, computed from the finished rows.
        open_sink: Opens the place of the rows; by default part files in a folder.

    Returns:
        The exit status: 0, 1 if the audit failed, 3 if too many rows failed, 143 if stopped.

    Raises:
        InputError: If an option or the manifest is unusable; nothing was written then.
    """
    began = time.monotonic()
    texts = read_prompts(prompts) if prompts else None
    shard = Shard.of(config.shard) if config.shard else None
    manifest = open_manifest(config.manifest, config.keep).only(shard)
    _print_notes(manifest, config.manifest)
    run = _Run(
        config, kind, manifest, texts, embeddings, views, crops, tuple(extra), open_sink, began
    )
    stored = stored_fingerprint(config.output) if open_sink is Output else {}
    # GPUs may have come or gone since the output's first run, and rows of two precisions don't mix.
    begun = stored.get("precision") if config.precision == "auto" else config.precision
    facts = known_facts(config.model, config.resolution)
    output = run.open(facts, begun) if facts and begun else None
    if output and output.is_done:
        return conclude_without_work(output.sink, manifest, config)
    with Cluster(config.address) as cluster:
        paths = [("--manifest", config.manifest), *_allowed(config)]
        paths += [("--output", config.output)] if open_sink is Output else []
        refuse_local_paths(paths, cluster, shared=config.shared_filesystem)
        pool = plan_pool(config, cluster, begun)
        check_gpu_options(config, pool, crops=crops, views=views)
        precision = precision_of(config, pool, begun)
        towers = None
        if facts is None:
            towers = _load(config.model, config)
            facts = ModelFacts.of(towers)
        output = output or run.open(facts, precision)
        if output.is_done:
            return conclude_without_work(output.sink, manifest, config)
        with Background(partial(run.load, towers)) as loading:
            cluster.start()
            towers, features = loading.result()
        loaded = ModelFacts.of(towers)
        if loaded != facts:  # what was remembered is wrong, whyever: the loaded model counts
            output = run.open(loaded, precision)
            if output.is_done:
                return conclude_without_work(output.sink, manifest, config)
        return run.execute(output, towers, features, precision, cluster, pool)


@dataclass(frozen=True)
class _Opened:
    """An output that was opened and checked.

    Attributes:
        sink: The output.
        schema: Its columns, without the extra ones.
        is_done: Whether it holds all rows.
    """

    sink: Sink
    schema: pa.Schema
    is_done: bool


@dataclass(frozen=True)
class _Run:
    """The arguments of :func:`run_images`, and the manifest and the prompts that they name."""

    config: ImageOptions
    kind: str
    manifest: Manifest
    prompts: Prompts | None
    embeddings: bool
    views: int
    crops: int
    extra: tuple[ExtraColumn, ...]
    open_sink: OpenSink
    began: float = field(default_factory=time.monotonic)

    def open(self, model: ModelFacts, precision: Precision) -> _Opened:
        """Open the output for a model; nothing is written.

        Raises:
            InputError: If it holds something else, or the prompts belong to another model.
        """
        config, manifest = self.config, self.manifest
        prompts = self.prompts.identity(model) if self.prompts else None
        schema = output_schema(
            manifest,
            config.keep,
            pairs=prompts.names if prompts else (),
            embedding=model.width if self.embeddings else None,
            views=self.views,
            hashes=config.hash,
            crops=self.crops,
            descriptors=config.descriptors,
        )
        tower = fingerprint_of_tower(config, model, precision, self.crops)
        columns = schema_with(schema, self.extra)
        fingerprint = fingerprint_of_run(self.kind, tower, prompts, columns)
        check_extra(self.extra, fingerprint)
        sink = self.open_sink(config.output, manifest, fingerprint, config.lease_seconds)
        if self.extra:
            sink = SinkWithColumns(sink, self.extra)
        done = not left_to_do(manifest, sink.committed(), config.retry_errors)
        return _Opened(sink, schema, done)

    def load(self, towers: Towers | None) -> tuple[Towers, PromptFeatures | None]:
        """Load the model, unless it is given, and compute the features of the prompts.

        It may run while `Cluster.start` is in another working folder.
        """
        towers = towers or _load(with_absolute_file(self.config.model), self.config)
        return towers, self.prompts.features(towers) if self.prompts else None

    def execute(
        self,
        output: _Opened,
        towers: Towers,
        prompts: PromptFeatures | None,
        precision: Precision,
        cluster: Cluster,
        pool: ActorPool,
    ) -> int:
        """Score the missing rows on a cluster that has started; return the exit status."""
        # Each of them imports Ray or pandas, which takes seconds.
        from .driver import run_pipeline
        from .stages import stage_settings
        from .visibility import check_visible
        from .watchers import watch_run

        config, manifest, sink = self.config, self.manifest, output.sink
        if manifest.folder.is_local:
            first = manifest.folder.path(manifest.files[0].name)
            check_visible(first, f"--manifest {config.manifest}")
        spec = stage_settings(
            config, manifest, towers, prompts, precision, output.schema, self.views, self.crops
        )
        pool = with_memory(pool, cluster, towers.image)
        with sink.start(options_as_json(config)):
            sink.drop(config.retry_errors)
            done = sink.committed().rows
            plan = ScoringPlan.of(manifest, config.keep, done, skip_damaged=config.skip_damaged)
            before = f", {len(done):,} done before" if len(done) else ""
            of_shard = f"{manifest.shard}: " if manifest.shard else ""
            print(
                f"{of_shard}{plan.rows:,} rows to do{before}; {towers.name} in {precision}, {pool}",
                flush=True,
            )
            if note := about_gpus(pool, cluster):
                print(note, flush=True)
            policy = RunPolicy(
                config.commit_seconds,
                config.max_error_rate,
                config.wait_minutes,
                config.stall_minutes,
            )
            facts = {"model": towers.name, "precision": precision, "rows_done_before": len(done)}
            with (
                only_needed_actors(cluster),
                watch_run(config, self.kind, manifest, facts, self.open_sink is Output) as watch,
            ):
                outcome = run_pipeline(
                    plan, spec, pool, sink, policy, began=self.began, watch=watch
                )
                return conclude(sink, outcome, pool, config.max_error_rate, watch)


def _load(model: str, config: ImageOptions) -> Towers:
    """Load ``--model``, which ``model`` may spell otherwise, and remember its facts."""
    towers = replace(lightest_towers(model, config.resolution), name=config.model)
    remember_facts(towers, config.resolution)
    return towers


def _allowed(config: ImageOptions) -> list[tuple[str, str]]:
    return [("--allow-prefix", prefix) for prefix in config.allow_prefix]


def _print_notes(manifest: Manifest, uri: str) -> None:
    for note in manifest.notes[:_NOTES]:
        print(f"--manifest {redact(uri)}: {note}", file=sys.stderr)
    if len(manifest.notes) > _NOTES:
        print(f"and {len(manifest.notes) - _NOTES:,} more such folders or links", file=sys.stderr)
