"""One run of `iqa train`: from the options to workers on Ray Train, and to the prompt file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import ray
from ray.train import ScalingConfig

from iqa_core.clip.encoder import context_encoder
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.losses.table import find_loss
from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import DEFAULT_PAIRS, load_pairs
from iqa_core.scoring.features import encode_prompts
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.training.decide import FEWEST_CONTENTS
from iqa_core.training.settings import Settings, relative_rate
from iqa_core.training.split import MAX_ROWS, check_teacher, plan_training_data
from iqa_core.training.world import check_workers

from ..cluster import Cluster
from ..local_paths import refuse_local_paths
from ..scoring.pool import ActorPool, waiting_for
from ..scoring.visibility import check_visible
from .conclude import TrainingRun, conclude
from .config import check_options
from .progress import show_progress
from .run_folder import (
    METRICS,
    RUN,
    TENSORBOARD,
    absolute,
    begin_training,
    describe_training,
    open_data,
    tidy,
)
from .workers import Job, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.clip.encoder import Towers
    from iqa_core.prompts.pairs import PromptPair
    from iqa_core.training.data import TrainingData

    from ..progress import Waiting
    from .config import Config

__all__ = ["run_training", "settings_of"]

_DEFAULT_STEPS = 1000
_LEASE_SECONDS = 30.0


def run_training(config: Config) -> int:
    """Learn prompts and write them.

    Args:
        config: The options.

    Returns:
        The exit status, 0.

    Raises:
        InputError: If an option or the features are unusable, where nothing was written, or if
            training failed.
    """
    inputs = (config.features, config.clean_features)
    check_output_file("output", config.output, ".safetensors", inputs)
    cache = FeatureCache(config.features)
    check_teacher(cache, config.teacher, config.watch)
    clean = _clean_features(config, cache)
    check_options(config, has_copies=bool(cache.views) or isinstance(clean, FeatureCache))
    towers = load_towers(cache.fingerprint["model"])
    cache.check_weights(towers.digest)
    pairs = load_pairs(config.pairs)
    ensemble = _contexts(config, towers, pairs)
    prompts = encode_prompts(towers, pairs, config.logit_scale)
    # The best images are the best whatever the base prompts praise.
    judge = encode_prompts(towers, load_pairs(DEFAULT_PAIRS)) if clean == "best" else None
    own_order = config.recipe == "default"
    plan = plan_training_data(
        cache,
        len(pairs),
        teacher=config.teacher,
        lower_is_better=config.lower_is_better,
        holdout=config.holdout,
        holdout_by=config.holdout_by,
        watch=config.watch,
        clean=clean,
        most_rows=_rows_wanted(config),
        weighs_teacher=own_order and config.order_weight > 0,
    )
    rate = config.learning_rate or relative_rate(
        context_encoder(towers.text).token_embedding.weight
    )
    settings = settings_of(config, prompts.logit_scale, plan.data.rows, rate)
    document = describe_training(config, cache, settings, plan.data, ensemble, clean)
    beside = config.output.removesuffix(".safetensors") + ".run"
    folder = Folder.given(
        config.run_folder or beside, "run-folder" if config.run_folder else "output"
    )
    run = TrainingRun(
        config, towers, ensemble, prompts, plan.data, plan.rows.cache, document, folder
    )
    if config.recipe == "weights":
        with OutputLease(folder, _LEASE_SECONDS) as lease:
            begin_training(folder, document)
            run = replace(run, data=open_data(cache, plan, folder, prompts, judge))
            lease.check()
            conclude(run, None)
            tidy(folder, keep=())
        return 0
    check_workers(config.num_workers, config.seeds, len(pairs))
    with Cluster(config.address) as cluster:
        paths = [("--run-folder", folder.uri)]  # alone: features and output are the driver's
        refuse_local_paths(paths, cluster, shared=config.shared_filesystem)
        scaling = _scaling(config, cluster)
        with OutputLease(folder, _LEASE_SECONDS) as lease:
            begin_training(folder, document)
            run = replace(run, data=open_data(cache, plan, folder, prompts, judge))
            if _draws_lists(config) and run.data.rows < config.list_size:
                tidy(folder, keep=())
                raise _too_few_rows(config.list_size, run.data.rows)
            print(_summary(config, run.data, settings, scaling), flush=True)
            cluster.start()
            if folder.is_local:
                check_visible(folder.path(RUN), f"--run-folder {folder.uri}")
            job = Job(context_encoder(towers.text), ensemble, settings, absolute(folder))
            waiting = partial(_waiting, scaling)
            with show_progress(folder, settings.steps, waiting, config.wait_minutes):
                state = fit(job, scaling, config.max_failures, folder)
            lease.check()  # a driver that was suspended must not tidy up what another one trains
            conclude(run, state)
            tidy(folder, keep=(METRICS, TENSORBOARD))
    return 0


def _clean_features(config: Config, cache: FeatureCache) -> FeatureCache | Literal["own", "best"]:
    """Return where images with copies come from.

    Raises:
        InputError: If the features given are none, or have no copies.
    """
    if config.clean_features is None:
        return "own"
    if config.clean_features != "best":
        return FeatureCache(config.clean_features)
    if not cache.views:
        raise InputError(
            argument="clean_features",
            value="best",
            limit="used with --features that have degraded copies",
            fix="make them by `iqa embed --views 4`",
        )
    return "best"


def _contexts(config: Config, towers: Towers, pairs: Sequence[PromptPair]) -> PromptEnsemble:
    """Return the contexts at their random starts."""
    return PromptEnsemble(
        [
            PromptLearner(
                towers.text,
                pairs,
                context_length=0 if config.recipe == "weights" else config.context_length,
                position=config.position,
                context=config.context,
                init="random" if config.recipe == "weights" else config.init,
                seed=config.seed + number,
            )
            for number in range(1 if config.recipe == "weights" else config.seeds)
        ]
    )


def _rows_wanted(config: Config) -> int:
    """Return how many rows a training reads: not more than its steps use."""
    if config.epochs:
        return MAX_ROWS
    return (config.steps or _DEFAULT_STEPS) * config.list_size


def settings_of(
    config: Config, logit_scale: float, rows: int, learning_rate: float = 0.002
) -> Settings:
    """Return the settings that the options ask for.

    Args:
        config: The options.
        logit_scale: The factor g on cosine differences.
        rows: The number of rows to train on.
        learning_rate: Where the options have none.

    Raises:
        InputError: If an option is unusable.
    """
    settings = Settings(
        loss=config.loss,
        loss_options=_loss_options(config.loss_options),
        list_size=config.list_size,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate or learning_rate,
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        checkpoint_steps=config.checkpoint_steps,
        logit_scale=logit_scale,
        order_weight=config.order_weight if config.recipe == "default" else 0.0,
        meaning=config.meaning if config.recipe == "default" else 0.0,
        seed=config.seed,
    )
    per_epoch = max(1, rows // config.list_size)
    if _draws_lists(config) and rows < config.list_size:
        raise _too_few_rows(config.list_size, rows)
    given = [config.steps] if config.steps else []
    given += [max(1, round(config.epochs * per_epoch))] if config.epochs else []
    return replace(settings, steps=min(given) if given else _DEFAULT_STEPS)


def _draws_lists(config: Config) -> bool:
    return config.recipe != "weights" and find_loss(config.loss).kind != "pseudo-label"


def _too_few_rows(list_size: int, rows: int) -> InputError:
    return InputError(
        argument="list_size",
        value=list_size,
        limit=f"at most {rows:,}, the number of training rows",
        fix="lower it, or embed more images",
    )


def _loss_options(options: tuple[str, ...]) -> dict[str, float]:
    numbers = {}
    for text in options:
        name, _, value = text.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise InputError(
                argument="loss_options",
                value=text,
                limit="NAME=NUMBER",
                fix="write it as in temperature=0.2",
            ) from None
    return numbers


def _scaling(config: Config, cluster: Cluster) -> ScalingConfig:
    """Return the number of workers and their resources.

    Raises:
        InputError: If a local Ray could never hold them.
    """
    gpus, most = config.gpus_per_worker, config.num_workers
    fewest = most if config.min_workers is None else config.min_workers
    if fewest > most:
        raise InputError(
            argument="min_workers",
            value=fewest,
            limit=f"at most {{num_workers}}, which is {most}",
            fix="lower it, or leave it out",
        )
    if gpus is None:
        gpus = 1.0 if cluster.resources.get("GPU", 0) or cluster.possible_gpus else 0.0
    wanted = {"CPU": 1.0, "GPU": gpus} if gpus else {"CPU": 1.0}
    for kind, each in wanted.items():
        have, need = cluster.resources.get(kind, 0.0), each * fewest
        if need > have and not ray.is_initialized():
            raise InputError(
                argument="num_workers" if fewest == most else "min_workers",
                value=fewest,
                limit=f"at most {int(have / each)} here, with {each:g} {kind} each of this machine's "
                f"{have:g}",
                fix="use fewer, or a cluster with {address}",
            )
        if need > have:
            print(f"waiting for {need:g} {kind}s: the cluster has {have:g} so far", flush=True)
    return ScalingConfig(
        num_workers=most if fewest == most else (fewest, most),  # type: ignore[arg-type]
        use_gpu=bool(gpus),
        resources_per_worker=wanted,
    )


def _summary(config: Config, data: TrainingData, settings: Settings, scaling: ScalingConfig) -> str:
    near = ""
    if data.near_duplicates:
        near = f", {data.near_duplicates:,} left out as nearly equal to held-out ones"
    workers = str(config.num_workers)
    if config.min_workers not in (None, config.num_workers):
        workers = f"{config.min_workers} to {workers}"
    return (
        f"{data.rows:,} rows to train on, {data.held_out_rows:,} held out, {data.unused:,} unusable{near}\n"
        f"{_copies(data)}\n{settings.steps:,} steps of {settings.loss} on lists of {settings.list_size}, "
        f"contexts: {config.seeds}, workers: {workers} on "
        f"{'GPUs' if scaling.use_gpu else 'CPUs'}"
    )


def _copies(data: TrainingData) -> str:
    """Return the sentence on degraded copies: where they come from, and what that costs."""
    if not data.bases:
        return "no degraded copies (`iqa embed --views 4` adds them): nothing here knows quality"
    trust = f"; trust in the fixed prompts {np.mean(data.trust):.2f}" if data.trust else ""
    if 0 < data.held_out_bases < FEWEST_CONTENTS:
        trust += (
            f"; only {data.held_out_bases} of them are held out, too few to tell learned from fixed "
            "prompts: raise --holdout, or give more"
        )
    if data.clean == "given":
        return f"{data.views} degraded copies each of {data.bases:,} clean images{trust}"
    if data.clean == "best":
        return (
            f"{data.views} degraded copies each of the {data.bases:,} images with the highest scores, "
            f"taken for clean{trust}"
        )
    return (
        f"{data.views} degraded copies of each image, compared with each other only, as images may be "
        f"damaged themselves{trust}. Images known to be good teach more: --clean-features"
    )


def _waiting(scaling: ScalingConfig) -> Waiting | None:
    """Return what the workers wait for, if no node could hold one."""
    each: Any = scaling.resources_per_worker
    worker = ActorPool(1, each["CPU"], each.get("GPU", 0.0))
    return waiting_for(worker, ray.nodes(), what="a training worker")
