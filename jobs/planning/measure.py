"""Measures a sample of a manifest by the chain of a run, on the run's cluster; nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from iqa_core.clip.embedded import lightest_towers
from iqa_core.clip.facts import ModelFacts, with_absolute_file
from iqa_core.errors import InputError, Status
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output, stored_fingerprint
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import output_schema, schema_with

from ..background import Background
from ..cluster import Cluster, nodes_now
from ..local_paths import refuse_local_paths
from ..scoring.fingerprint import fingerprint_of_run, fingerprint_of_tower
from ..scoring.gpu_options import check_gpu_options
from ..scoring.local_data import only_needed_actors
from ..scoring.meter import Steady
from ..scoring.policy import RunPolicy
from ..scoring.prompts import read_prompts
from ..scoring.resources import has_amx, plan_pool, precision_of
from .discard import Discard
from .forecast import Fleet
from .sample import SamplePlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from iqa_core.clip.encoder import Precision, Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.schema import ExtraColumn

    from ..cluster import Resources
    from ..config import ImageOptions, PromptOptions
    from ..scoring.meter import Meter
    from ..scoring.outcome import Outcome
    from ..scoring.plan import ScoringPlan
    from ..scoring.pool import ActorPool
    from ..scoring.prompts import Prompts

__all__ = ["Measured", "PlanOptions", "measure"]

#: Rows of a sample, and the least of each actor on larger clusters.
_SAMPLE = 1000
_SAMPLE_OF_ACTOR = 256


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How much is measured.

    Attributes:
        rows: Most rows; None takes 1,000, or more on a cluster of many actors.
        seconds: Most seconds of the steady state.
        seed: Of the sample.
        crops: Views of each image that are scored.
        embeddings: Whether the run writes the image features.
        extra: Extra columns of the run.
    """

    rows: int | None
    seconds: float
    seed: int
    crops: int = 1
    embeddings: bool = False
    extra: tuple[ExtraColumn, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What a sample of a run showed.

    Attributes:
        left: Rows to do.
        drawn: Rows of the sample.
        statuses: Its measured rows by status; they may be fewer.
        steady: Its steady state.
        is_rough: Whether that was too short to be measured, and follows from busy seconds only.
        start_up: Seconds from the command to the steady state.
        fleet: What the run will have.
        precision: Of the tower.
        nodes: Nodes of the cluster when the sample was done.
        most_actors: Actors that the run will ask for; None takes all that nodes hold.
        bf16_is_faster: Whether the run may choose bf16, and this machine is known to be faster in it.
    """

    left: int
    drawn: int
    statuses: dict[str, int]
    steady: Steady
    is_rough: bool
    start_up: float
    fleet: Fleet
    precision: Precision
    nodes: int = 1
    most_actors: int | None = None
    bf16_is_faster: bool = False


def measure(config: ImageOptions, prompts: PromptOptions, options: PlanOptions) -> Measured | None:
    """Run a sample of a manifest's unfinished rows through the chain of ``iqa score``.

    Args:
        config: The options of the run that is planned; without an output, all rows are unfinished.
        prompts: Its prompts.
        options: How much is measured.

    Returns:
        What was measured; None if no row is left to do.

    Raises:
        InputError: If an option, the manifest or the output is unusable, or no image of the sample
            could be scored.
    """
    began = time.monotonic()
    texts = read_prompts(prompts)
    shard = Shard.of(config.shard) if config.shard else None
    manifest = open_manifest(config.manifest, config.keep).only(shard)
    stored = stored_fingerprint(config.output) if config.output else {}
    with Cluster(config.address) as cluster:
        begun = stored.get("precision") if config.precision == "auto" else config.precision
        paths = [("--manifest", config.manifest), ("--output", config.output)]
        refuse_local_paths(paths, cluster, shared=config.shared_filesystem)
        pool = plan_pool(config, cluster, begun)
        check_gpu_options(config, pool, crops=options.crops)
        precision = precision_of(config, pool, begun)
        with Background(partial(_load, config, texts)) as loading:
            cluster.start()
            towers, features = loading.result()
        schema = output_schema(
            manifest,
            config.keep,
            pairs=features.names,
            embedding=towers.image.width if options.embeddings else None,
            hashes=config.hash,
            crops=options.crops,
            descriptors=config.descriptors,
        )
        tower = fingerprint_of_tower(config, ModelFacts.of(towers), precision, options.crops)
        identity = texts.identity(ModelFacts.of(towers))
        columns = schema_with(schema, options.extra)
        fingerprint = fingerprint_of_run("score", tower, identity, columns)
        done, again = _done(config, manifest, fingerprint)
        left = manifest.rows - len(done) + again
        if not left:
            return None
        actors = _actors(pool, cluster.nodes, cluster.labels)
        number = options.rows or max(_SAMPLE, _SAMPLE_OF_ACTOR * actors)
        rows = done if len(done) < manifest.rows else RowSet()  # only rows to retry are left
        plan = SamplePlan.draw(
            manifest,
            config.keep,
            rows,
            number,
            options.seed,
            skip_damaged=config.skip_damaged,
        )
        with only_needed_actors(cluster):
            outcome, block_rows = _run(
                config,
                plan,
                towers,
                features,
                precision,
                schema,
                pool,
                actors,
                left,
                began,
                options,
            )
        nodes, labels = nodes_now()
    actors = _actors(pool, nodes, labels)
    if not outcome.statuses.get(Status.OK):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(outcome.statuses.items()))
        raise InputError(
            f"--manifest {config.manifest}: none of {outcome.rows:,} sampled images could be scored "
            f"({kinds or 'stopped'}): `iqa score` gives the reason of each row in its error column"
        )
    fleet = Fleet(
        cpus=sum(node.get("CPU", 0.0) for node in nodes),
        gpus=sum(node.get("GPU", 0.0) for node in nodes),
        actors=actors,
        actor_cpus=pool.cpus,
        actor_gpus=pool.gpus,
        block_rows=block_rows,
    )
    return Measured(
        left=left,
        drawn=plan.rows,
        statuses=outcome.statuses,
        steady=outcome.steady or _rough(outcome),
        is_rough=outcome.steady is None,
        start_up=outcome.start_up or 0.0,
        fleet=fleet,
        precision=precision,
        nodes=len(nodes),
        most_actors=pool.most,
        bf16_is_faster=begun is None and cluster.is_local and not pool.gpus and has_amx(),
    )


def _load(config: ImageOptions, prompts: Prompts) -> tuple[Towers, PromptFeatures]:
    model = with_absolute_file(config.model)
    towers = replace(lightest_towers(model, config.resolution), name=config.model)
    return towers, prompts.features(towers)


def _done(
    config: ImageOptions, manifest: Manifest, fingerprint: Mapping[str, Any]
) -> tuple[RowSet, int]:
    """Return the finished rows of the output, if there is one, and how many are to be retried."""
    if not config.output:
        return RowSet(), 0
    committed = Output(config.output, manifest, fingerprint, config.lease_seconds).committed()
    return committed.rows, sum(committed.statuses[status] for status in config.retry_errors)


def _run(
    config: ImageOptions,
    plan: SamplePlan,
    towers: Towers,
    features: PromptFeatures,
    precision: Precision,
    schema: pa.Schema,
    pool: ActorPool,
    actors: int,
    left: int,
    began: float,
    options: PlanOptions,
) -> tuple[Outcome, int]:
    """Measure; return the outcome, and the rows of a finished block in the run that is planned."""
    from ..scoring.dataset import finished_rows  # imports Ray
    from ..scoring.driver import run_pipeline
    from ..scoring.stages import stage_settings
    from ..scoring.visibility import check_visible

    manifest = plan.manifest
    if manifest.folder.is_local:
        first = manifest.folder.path(manifest.files[0].name)
        check_visible(first, f"--manifest {config.manifest}")
    spec = stage_settings(
        config, manifest, towers, features, precision, schema, crops=options.crops
    )

    def enough(meter: Meter) -> bool:
        return meter.devices >= actors and meter.seconds_of_all_busy() >= options.seconds

    policy = RunPolicy(config.commit_seconds, 1.0, config.wait_minutes, config.stall_minutes)
    outcome = run_pipeline(plan, spec, pool, Discard(), policy, began=began, enough=enough)
    whole: ScoringPlan = replace(plan, rows=left)
    return outcome, finished_rows(whole, spec, pool)


def _actors(
    pool: ActorPool, nodes: Sequence[Resources], labels: Sequence[Mapping[str, str]]
) -> int:
    """Return the number of actors that some nodes hold."""
    fitting = 0
    for node, its_labels in zip(nodes, labels, strict=True):
        if not pool.score_on.allows(its_labels):
            continue
        kinds = [node.get(kind, 0.0) / each for kind, each in pool.resources.items() if each]
        fitting += math.floor(min(kinds) + 1e-6)
    return max(1, fitting if pool.most is None else min(pool.most, fitting))


def _rough(outcome: Outcome) -> Steady:
    """Return the steady state as it follows from busy seconds."""
    devices = max(1, len(outcome.devices))
    busy = outcome.stage_seconds
    seconds = max(sum(busy.values()) / devices, 1e-9)
    return Steady(outcome.rows / seconds, seconds, outcome.rows, devices, busy, 0.0, 1.0)
