"""One run of `iqa train`: Ray Train's workers, their checkpoints, and what is left at the end.

The run folder holds the rows (memory-mapped by the workers) and the checkpoints while training lasts,
and ``metrics.parquet`` and TensorBoard's curves for good. Whatever is killed, a worker or the driver,
costs at most the steps since the last checkpoint.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointConsistencyMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from iqa_core import __version__
from iqa_core.clip.encoder import context_encoder
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.evaluation.correlations import srcc
from iqa_core.pages.training import TrainingFacts, training_page
from iqa_core.prompts.file import save_prompts
from iqa_core.prompts.learner import PromptLearner, learned_prompts
from iqa_core.prompts.pairs import load_pairs
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import image_scores_f64
from iqa_core.scoring.margins import margins as fixed_margins
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.storage.lease import OutputLease
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.training.data import (
    DATA,
    FILES,
    Rows,
    TrainingData,
    check_target,
    plan_training_data,
    write_training_data,
)
from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.loop import (
    Settings,
    State,
    World,
    agreement,
    held_out_margins,
    steps_per_epoch,
    train,
)

from ..cluster import Cluster
from ..progress import Progress
from ..ray_errors import as_input_error, loss
from ..scoring.pool import Actors, waiting_for
from ..scoring.visibility import check_visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from iqa_core.clip.encoder import ContextTextEncoder, Towers
    from iqa_core.prompts.file import LearnedPrompts
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.training.data import DataPlan

    from ..train import Config

__all__ = ["run_training"]

_RUN = "run.json"
_PROGRESS = "progress.json"
_STARTS = "start-*.json"
_METRICS = "metrics.parquet"
_CHECKPOINTS = "checkpoints"
_TENSORBOARD = "tensorboard"
_STATE = "state.pt"

_DEFAULT_STEPS = 500
_LEASE_SECONDS = 30.0
_SAY_SECONDS = 5.0
_VIEWED_ROWS = 512  # held-out rows whose copies are compared at the end
#: A report waits until the controller has asked for it; Ray's 2 s would be most of a training.
_POLL_SECONDS = "0.2"
#: A worker group that can't start is tried again so often, a minute each: a cluster may take a day.
_START_FAILURES = 24 * 60


@dataclass(frozen=True)
class Job:
    """What a worker needs; travels through the object store.

    Attributes:
        tower: The text tower.
        learner: The prompt learner at its start.
        settings: How to train.
        folder: The run folder.
    """

    tower: ContextTextEncoder
    learner: PromptLearner
    settings: Settings
    folder: str


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
    prompt_path = _check_output(config.output)
    cache = FeatureCache(config.features)
    check_target(cache, config.teacher, config.watch)
    towers = _towers(cache, config.features)
    pairs = load_pairs(config.pairs)
    learner = PromptLearner(
        towers.text,
        pairs,
        context_length=config.context_length,
        position=config.position,
        context=config.context,
        words=None if config.init == "random" else config.init,
        seed=config.seed,
    )
    prompts = encode_prompts(towers, pairs, config.logit_scale)
    plan = plan_training_data(
        cache,
        len(pairs),
        target=config.teacher,
        holdout=config.holdout,
        holdout_by=config.holdout_by,
        watch=config.watch,
    )
    settings = _settings(config, prompts.logit_scale, plan.data.rows)
    training = _describe_training(config, cache, settings, plan.data, learner)
    folder = Folder.of(config.run_folder or prompt_path.removesuffix(".safetensors") + ".run")
    with Cluster(config.address) as cluster:
        scaling = _scaling(config, cluster)
        _check_same_run(folder, training)
        with OutputLease(folder, _LEASE_SECONDS):
            if folder.exists(_RUN):
                print(f"going on with the unfinished training in {folder.uri}")
            else:
                _tidy(folder, keep=())
                folder.write_json(_RUN, training)
            data = _data(cache, plan, folder, prompts)
            print(
                f"{data.rows:,} rows to train on, {data.held_out_rows:,} held out, {data.unused:,} "
                f"unusable; {_views(data)}\n{settings.steps:,} steps at most of {settings.loss} on "
                f"{settings.lists} lists of {settings.list_size}, workers: {config.num_workers} on "
                f"{'GPUs' if scaling.use_gpu else 'CPUs'}",
                flush=True,
            )
            cluster.start()
            if folder.is_local:
                check_visible(folder.path(_RUN), f"--run-folder {folder.uri}")
            job = Job(context_encoder(towers.text), learner, settings, _absolute(folder))
            with _saying(folder, settings, partial(_waiting, scaling)):
                state = _fit(job, scaling, config.max_failures, folder)
            _conclude(config, towers, learner, prompts, data, settings, state, training, folder)
            _tidy(folder, keep=(_METRICS, _TENSORBOARD))
    return 0


def _views(data: TrainingData) -> str:
    if not data.views:
        return "no degraded copies (`iqa embed --views` adds them)"
    return f"{data.views} degraded copies each, trust in the teacher {np.mean(data.trust):.2f}"


def _check_output(output: str) -> str:
    if not output.endswith(".safetensors"):
        raise InputError(f"--output {output} must be named *.safetensors: add it to the name")
    return output


def _towers(cache: FeatureCache, features: str) -> Towers:
    model = cache.fingerprint["model"]
    towers = load_towers(model)
    if towers.digest != cache.fingerprint["weights"]:
        raise InputError(
            f"--features {features} was made by --model {model} with the weights "
            f"{cache.fingerprint['weights'][:12]}, but it now has {towers.digest[:12]}: run "
            "`iqa embed` again"
        )
    return towers


def _settings(config: Config, logit_scale: float, rows: int) -> Settings:
    settings = Settings(
        loss=config.loss,
        loss_options=_loss_options(config.loss_options),
        list_size=config.list_size,
        lists=config.lists,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        interval=config.checkpoint_steps,
        patience=config.patience,
        logit_scale=logit_scale,
        order_weight=config.order_weight,
        seed=config.seed,
    )
    per_epoch = steps_per_epoch(rows, settings, World(0, config.num_workers))
    given = [config.steps] if config.steps else []
    given += [max(1, round(config.epochs * per_epoch))] if config.epochs else []
    return replace(settings, steps=min(given) if given else _DEFAULT_STEPS)


def _loss_options(words: tuple[str, ...]) -> dict[str, float]:
    options = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            options[name] = float(value)
        except ValueError:
            raise InputError(
                f"--loss-options {word!r} is not NAME=NUMBER, such as temperature=0.2"
            ) from None
    return options


def _scaling(config: Config, cluster: Cluster) -> ScalingConfig:
    """Return how many workers of which kind.

    Raises:
        InputError: If a local Ray could never hold them.
    """
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if cluster.resources.get("GPU", 0) or cluster.possible_gpus else 0.0
    wanted = {"CPU": 1.0, "GPU": gpus} if gpus else {"CPU": 1.0}
    for kind, each in wanted.items():
        have, need = cluster.resources.get(kind, 0.0), each * config.num_workers
        if need > have and not ray.is_initialized():
            raise InputError(
                f"--num-workers {config.num_workers} needs {need:g} {kind}s, but this machine has "
                f"{have:g}: use fewer, or a cluster with --address"
            )
        if need > have:
            print(f"waiting for {need:g} {kind}s: the cluster has {have:g} so far", flush=True)
    return ScalingConfig(
        num_workers=config.num_workers, use_gpu=bool(gpus), resources_per_worker=wanted
    )


def _describe_training(
    config: Config,
    cache: FeatureCache,
    settings: Settings,
    data: TrainingData,
    learner: PromptLearner,
) -> dict[str, Any]:
    """Return what the result follows from; two runs that agree in it give the same prompts."""
    document = {
        "version": __version__,
        "features": cache.tower,
        "rows": {"train": data.rows, "held_out": data.held_out_rows, "unused": data.unused},
        "views": data.views,
        "pairs": [asdict(pair) for pair in learner.pairs],
        "teacher": config.teacher,
        "watch": list(config.watch),
        "holdout": config.holdout,
        "holdout_by": config.holdout_by,
        "context_length": learner.context_length,
        "position": config.position,
        "context": config.context,
        "init": config.init,
        "workers": config.num_workers,
        **asdict(settings),
    }
    return dict(json.loads(json.dumps(document)))


def _absolute(folder: Folder) -> str:
    """Return what names a folder from any working directory, as workers have their own."""
    return folder.root if folder.is_local else folder.uri


# The run folder -----------------------------------------------------------------------------------


def _check_same_run(folder: Folder, training: Mapping[str, Any]) -> None:
    if not folder.exists(_RUN):
        return
    before = folder.read_json(_RUN)
    other = [key for key in training if before.get(key) != training[key]]
    if other:
        raise InputError(
            f"--run-folder {folder.uri} holds an unfinished training with {other[0]} "
            f"{before.get(other[0])!r} where this one has {training[other[0]]!r}: give the same "
            "options to finish it, or remove the folder, or name another"
        )


def _tidy(folder: Folder, keep: tuple[str, ...]) -> None:
    """Remove what this program wrote into a run folder; ``run.json`` last, as it says resumable."""
    names = [name for name in (*FILES, _PROGRESS, _METRICS) if name not in keep]
    for name in [*names, *folder.list(_STARTS)]:
        folder.remove(name)
    for name in (_CHECKPOINTS, _TENSORBOARD):
        if name not in keep and folder.exists(name):
            folder.fs.rm(folder.path(name), recursive=True)
    folder.remove(_RUN)


def _data(
    cache: FeatureCache,
    plan: DataPlan,
    folder: Folder,
    prompts: PromptFeatures,
) -> TrainingData:
    if folder.exists(DATA):
        return TrainingData.open(_absolute(folder))
    return write_training_data(cache, plan, _absolute(folder), prompts)


def _waiting(scaling: ScalingConfig) -> str | None:
    """Return what the workers wait for, if no node could hold one."""
    each: Any = scaling.resources_per_worker
    worker = Actors(1, each["CPU"], each.get("GPU", 0.0))
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return waiting_for(worker, nodes, "a training worker")


@contextmanager
def _saying(
    folder: Folder, settings: Settings, waiting: Callable[[], str | None]
) -> Iterator[None]:
    """Say on standard error how far the workers are, or what they wait for."""
    stopped = threading.Event()
    said = -1
    progress = Progress(settings.steps)

    def say() -> None:
        nonlocal said
        try:
            record = folder.read_json(_PROGRESS)
        except (OSError, ValueError):
            return
        if record["step"] > said:
            said = record["step"]
            loss, reached, best = (_number(record[key]) for key in ("loss", "agreement", "best"))
            print(
                f"step {said:,} of {settings.steps:,}, loss {loss}, held-out agreement {reached} "
                f"(best {best} at step {record['best_step']:,})",
                file=sys.stderr,
                flush=True,
            )

    def follow() -> None:
        while not stopped.wait(_SAY_SECONDS):
            say()
            if said < 0:
                progress.wait_for(waiting())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        say()


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


# The workers --------------------------------------------------------------------------------------


def _fit(job: Job, scaling: ScalingConfig, max_failures: int, folder: Folder) -> State:
    """Run the workers; return the final state.

    Raises:
        InputError: If training failed.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _POLL_SECONDS)
    # Pickled, the reference is pinned for as long as the driver lives: restarted workers find it.
    reference = ray.cloudpickle.dumps(ray.put(job))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": reference},
        scaling_config=scaling,
        torch_config=TorchConfig(backend=_collectives(scaling)),
        run_config=RunConfig(
            name=_CHECKPOINTS,
            storage_path=_absolute(folder),
            failure_config=FailureConfig(
                max_failures=max_failures,
                controller_failure_limit=_START_FAILURES,  # type: ignore[call-arg]
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        result = trainer.fit()
    except SystemExit:  # of Ray's own handler of Ctrl-C
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        raise _failure(error, max_failures, folder) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
    if result.checkpoint is None:
        raise RuntimeError("training ended without a checkpoint")
    with result.checkpoint.as_directory() as path:
        return State.from_bytes((Path(path) / _STATE).read_bytes())


def _collectives(scaling: ScalingConfig) -> str:
    """Return what gathers margins and gradients across workers."""
    return "nccl" if scaling.use_gpu else "gloo"


def _failure(error: Exception, max_failures: int, folder: Folder) -> InputError:
    """Return one line: why training failed, and whether the same command can go on."""
    failures = [*getattr(error, "worker_failures", {}).values()]
    cause = next(iter(failures), getattr(error, "controller_failure", None)) or error
    reason = str(as_input_error(cause)).partition("; what was finished is safe")[0]
    ended = f"training ended after {max_failures} restarts: {reason}"
    if loss(cause) is not None:
        return InputError(
            f"{ended}; the same command goes on from the last checkpoint in {folder.uri}"
        )
    return InputError(
        f"{ended}; the last checkpoint, if there is one, is kept in {folder.uri}, but the same command may "
        "meet this again"
    )


def train_worker(config: dict[str, Any]) -> None:
    """Train on one worker (runs in a Ray Train worker; again from its checkpoint after a loss)."""
    job: Job = ray.get(ray.cloudpickle.loads(config["job"]))
    torch.set_num_threads(1)  # faster here than two, and the same sums on every machine
    device = ray.train.torch.get_device()
    checkpoint = ray.train.get_checkpoint()
    state = None
    if checkpoint:
        with checkpoint.as_directory() as path:
            state = State.from_bytes((Path(path) / _STATE).read_bytes())
    folder, first = Folder.of(job.folder), World.current().rank == 0
    _announce(folder, state.step if state else 0)
    with _curves(folder if first else None, state) as draw:

        def on_look(state: State) -> None:
            _report(state, first=first)
            if first:
                draw(state)  # only now: what people see is never ahead of the checkpoint

        train(
            job.learner.to(device),
            job.tower.to(device),
            TrainingData.open(job.folder),
            job.settings,
            state=state,
            on_look=on_look,
        )


def _announce(folder: Folder, step: int) -> None:
    """Note that the workers start, where they are, and from which step they go on."""
    world = World.current()
    me = {"host": platform.node(), "process": os.getpid()}
    workers: list[Any] = [me]
    if world.size > 1:
        workers = [None] * world.size
        dist.all_gather_object(workers, me)
    if world.rank == 0:
        number = len(folder.list(_STARTS))
        folder.write_json(f"start-{number:04d}.json", {"step": step, "workers": workers})


def _report(state: State, *, first: bool) -> None:
    metrics = {**state.history[-1], "best": state.best, "best_step": state.best_step}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if first:
            (Path(folder) / _STATE).write_bytes(state.to_bytes())
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint)
    if first:
        # Until the controller has noted a report, it is lost with its worker: two intervals, not one.
        ray.train.get_all_reported_checkpoints(CheckpointConsistencyMode.COMMITTED)


@contextmanager
def _curves(folder: Folder | None, state: State | None) -> Iterator[Callable[[State], None]]:
    """Give what draws a look: progress for the driver and, where it can be, TensorBoard's curves."""
    writer = None
    if folder is not None and folder.is_local:
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
        except ImportError:  # comes with ray[train]
            print("tensorboardX is not installed: no curves for TensorBoard", file=sys.stderr)
        else:
            # What an interrupted attempt drew behind its checkpoint is drawn again.
            purge = state.step + 1 if state else None
            writer = SummaryWriter(folder.path(_TENSORBOARD), purge_step=purge)

    def draw(state: State) -> None:
        if folder is None:
            return
        record = {**state.history[-1], "best": state.best, "best_step": state.best_step}
        finite = {key: value if math.isfinite(value) else None for key, value in record.items()}
        folder.write_json(_PROGRESS, finite)
        if writer is not None:
            for key in ("loss", "learning_rate", "agreement"):
                if math.isfinite(record[key]):
                    writer.add_scalar(key, record[key], state.step)
            writer.flush()

    try:
        yield draw
    finally:
        if writer is not None:
            writer.close()


# The end ------------------------------------------------------------------------------------------


def _conclude(
    config: Config,
    towers: Towers,
    learner: PromptLearner,
    prompts: PromptFeatures,
    data: TrainingData,
    settings: Settings,
    state: State,
    training: dict[str, Any],
    folder: Folder,
) -> None:
    """Measure the best context, write the prompt file and what belongs to it, and say so."""
    if state.ended == "diverged" and not state.best_step:
        _tidy(folder, keep=())
        raise InputError(
            f"training diverged at step {state.step}: lower --learning-rate "
            f"({settings.learning_rate:g})"
        )
    with torch.no_grad():
        learner.context.copy_(state.best_context)
    rows, (teacher, watched) = data.held_out(), data.held_out_references()
    margins = held_out_margins(
        learner, context_encoder(towers.text), rows.features, prompts.logit_scale
    )
    student = image_scores_f64(margins)[:, 0].numpy()
    # Between each pair and itself it is 1; the ensemble weighs its pairs by their trust.
    fixed = 1.0 if data.per_pair else srcc(teacher, rows.targets[:, 0])
    reached = agreement(margins, rows.targets, per_pair=data.per_pair)
    agreements = {f"srcc {config.teacher}": (fixed, reached)}
    for place, name in enumerate(data.watched):
        column = watched[:, place]
        agreements[f"srcc {name}"] = (srcc(teacher, column), srcc(student, column))
    if data.views:
        agreements["known order"] = _known_order(towers, learner, prompts, data)
    starts = [folder.read_json(name) for name in folder.list(_STARTS)]
    recovered = [start["step"] for start in starts[1:]]
    training = {
        **training,
        "steps_done": state.step,
        "best_step": state.best_step,
        "ended": state.ended,
        "recovered_at_steps": recovered,
    }
    learned = learned_prompts(
        learner,
        towers,
        logit_scale=config.logit_scale,
        training=training,
        metrics={
            "held_out_rows": data.held_out_rows,
            "teacher": {name: pair[0] for name, pair in agreements.items()},
            "student": {name: pair[1] for name, pair in agreements.items()},
            "agreement": {"start": state.history[0]["agreement"], "best": state.best},
            "trust": list(data.trust),
        },
    )
    _write_metrics(folder, state)
    sentences = [
        f"Workers were lost or stopped; training went on from the checkpoint of step {step:,}."
        for step in recovered
    ]
    page = training_page(
        TrainingFacts(
            title=f"Learned prompts: {Path(config.output).name}",
            history=state.history,
            best_step=state.best_step,
            teacher=teacher,
            student=student,
            agreements=agreements,
            words=learned.nearest_words,
            notices=[*sentences, *filter(None, [advice(agreements)])],
            facts={key: value for key, value in training.items() if key != "pairs"},
        )
    )
    _write_beside(config.output, ".html", page.encode())
    save_prompts(config.output, learned)
    _say_result(config, state, data, agreements, learned, sentences)


def _known_order(
    towers: Towers, learner: PromptLearner, prompts: PromptFeatures, data: TrainingData
) -> tuple[float, float]:
    """Return how far fixed and learned prompts agree with the known order of held-out copies."""
    rows = Rows(*(part[:_VIEWED_ROWS] for part in data.held_out()))
    views = np.concatenate(
        [rows.features[:, None], rows.views.reshape(len(rows.views), -1, data.width)], 1
    )
    every = views.reshape(-1, data.width)
    clean = np.zeros((len(rows.levels), 1), rows.levels.dtype)
    levels = torch.from_numpy(np.concatenate([clean, rows.levels], 1).ravel())
    fixed = torch.from_numpy(fixed_margins(every, prompts))
    learned = held_out_margins(learner, context_encoder(towers.text), every, prompts.logit_scale)
    found = (known_order_agreement(image_scores_f64(one), levels) for one in (fixed, learned))
    teacher, student = (float(one[0]) for one in found)
    return teacher, student


def advice(agreements: Mapping[str, tuple[float, float]]) -> str:
    """Return a sentence for who learned nothing, "" else: agreement with a teacher is no gain.

    Args:
        agreements: Name -> of the fixed and of the learned prompts; ``known order`` tells, if there.
    """
    fixed, learned = agreements.get("known order", (0.0, 1.0))
    if learned > fixed:
        return ""
    return "By the known order the learned prompts are no better: keep the fixed ones."


def _write_metrics(folder: Folder, state: State) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(state.history), buffer)
    folder.write(_METRICS, buffer.getvalue())


def _write_beside(output: str, suffix: str, content: bytes) -> None:
    path = output.removesuffix(".safetensors") + suffix
    parent, name = path.rpartition("/")[::2] if has_scheme(path) else os.path.split(path)
    Folder.of(parent or ".").write(name, content)


def _say_result(
    config: Config,
    state: State,
    data: TrainingData,
    agreements: Mapping[str, tuple[float, float]],
    learned: LearnedPrompts,
    recovered: list[str],
) -> None:
    why = {"steps": "all steps", "patience": "no better for long", "diverged": "it diverged"}
    print(
        f"{state.step:,} steps ({why[str(state.ended)]}), kept that of step {state.best_step:,}; "
        f"agreement on {data.held_out_rows:,} held-out rows:"
    )
    for name, (teacher, student) in agreements.items():
        print(f"  {name}: fixed prompts {teacher:.4f}, learned prompts {student:.4f}")
    if advice(agreements):
        print(f"  {advice(agreements)}")
    for number, near in enumerate(learned.nearest_words, start=1):
        words = ", ".join(f"{word} ({far:.2f})" for word, far in near)
        print(f"  vector {number} is nearest to {words}")
    for sentence in recovered:
        print(f"  {sentence}")
    page = config.output.removesuffix(".safetensors") + ".html"
    print(f"{config.output}: for `iqa score --prompts`; curves in {page}")
