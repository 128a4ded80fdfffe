"""The workers of Ray Train: their training function, checkpoints and failures.

If a worker or the driver is killed, only the steps since the last checkpoint are lost.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import torch
import torch.distributed as dist
from pyarrow.fs import FSSpecHandler, PyFileSystem
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

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.training.data import TrainingData
from iqa_core.training.loop import train
from iqa_core.training.state import State
from iqa_core.training.world import World

from ..ray_errors import as_input_error, loss
from .run_folder import CHECKPOINTS, END, PROGRESS, STARTS, STATE, TENSORBOARD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.clip.encoder import ContextTextEncoder
    from iqa_core.prompts.ensemble import PromptEnsemble
    from iqa_core.training.settings import Settings

__all__ = ["Job", "fit", "train_worker"]

#: A report waits until the controller has asked for it; Ray's 2 s would be most of a training.
_POLL_SECONDS = "0.2"
#: Number of attempts to start a worker group, a minute each: a cluster may take a day.
_START_FAILURES = 24 * 60


@dataclass(frozen=True)
class Job:
    """What a worker needs; passed through the object store.

    Attributes:
        tower: The text tower.
        learner: The contexts at their start.
        settings: How to train.
        folder: The run folder, for any working directory.
    """

    tower: ContextTextEncoder
    learner: PromptEnsemble
    settings: Settings
    folder: str


def fit(job: Job, scaling: ScalingConfig, max_failures: int, folder: Folder) -> State:
    """Run the workers; return the final state.

    Args:
        job: What each worker needs.
        scaling: How many workers, and of what resources.
        max_failures: How many times lost workers are restarted.
        folder: The run folder.

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
        torch_config=TorchConfig(backend=_backend(scaling)),
        run_config=RunConfig(
            name=CHECKPOINTS,
            **_storage(folder),
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
    return _read_checkpoint(result.checkpoint)


def _storage(folder: Folder) -> dict[str, Any]:
    """Return the place of the checkpoints for Ray Train.

    By way of fsspec, as everything else here: by itself Ray would take Arrow's own clients, which know
    neither fsspec's configuration, such as the address of a store, nor its other filesystems.
    """
    if folder.is_local:
        return {"storage_path": folder.root}
    filesystem = PyFileSystem(FSSpecHandler(folder.fs))
    return {"storage_path": folder.root, "storage_filesystem": filesystem}


def _backend(scaling: ScalingConfig) -> str:
    """Return the backend of torch.distributed that gathers margins and gradients.

    NCCL refuses two workers on one GPU.
    """
    each: Any = scaling.resources_per_worker
    return "nccl" if scaling.use_gpu and each["GPU"] >= 1 else "gloo"


def _read_checkpoint(checkpoint: Checkpoint) -> State:
    with checkpoint.as_directory() as path:
        return State.from_bytes((Path(path) / STATE).read_bytes())


def _failure(error: Exception, max_failures: int, folder: Folder) -> InputError:
    """Return one line: why training failed, and whether the same command can resume it."""
    failures = [*getattr(error, "worker_failures", {}).values()]
    cause = next(iter(failures), getattr(error, "controller_failure", None)) or error
    reason = str(as_input_error(cause)).partition("; what was finished is safe")[0]
    ended = f"training ended after {max_failures} restarts: {reason}"
    if loss(cause) is not None:
        return InputError(
            f"{ended}; the same command resumes from the last checkpoint in {folder.uri}"
        )
    return InputError(
        f"{ended}; the last checkpoint, if there is one, is kept in {folder.uri}, but the same command may "
        "fail in the same way"
    )


def train_worker(config: dict[str, Any]) -> None:
    """Train on one worker (runs in a Ray Train worker; again from its checkpoint after a loss).

    Args:
        config: ``job`` is a pickled reference to the :class:`Job`.
    """
    job: Job = ray.get(ray.cloudpickle.loads(config["job"]))
    torch.set_num_threads(1)  # faster here than two, and the same sums on every machine
    device = ray.train.torch.get_device()
    checkpoint = ray.train.get_checkpoint()
    state = _read_checkpoint(checkpoint) if checkpoint else None
    folder, first = Folder.of(job.folder), World.current().rank == 0
    _record_start(folder, state.step if state else 0)
    with _recorder(folder if first else None, state) as record:

        def on_check(state: State) -> None:
            _report(state, first=first)
            if first:
                record(
                    state
                )  # only now: the progress that is shown is never ahead of the checkpoint

        train(
            job.learner.to(device),
            job.tower.to(device),
            TrainingData.open(job.folder),
            job.settings,
            state=state,
            on_check=on_check,
        )
    _record_end(folder)


def _record_start(folder: Folder, step: int) -> None:
    """Record that the workers start, where they run, and from which step they continue."""
    workers = _gathered({"host": platform.node(), "process": os.getpid()})
    if World.current().rank == 0:
        name = STARTS.replace("*", f"{len(folder.list(STARTS)):04d}")
        folder.write_json(name, {"step": step, "workers": workers})


def _record_end(folder: Folder) -> None:
    """Record how much memory each worker took at most."""
    peaks = _gathered(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if World.current().rank == 0:
        folder.write_json(END, {"peak_memory_mib": peaks})


def _gathered(mine: Any) -> list[Any]:  # noqa: ANN401 - whatever can be pickled
    """Return what each worker gives, in the order of their ranks."""
    size = World.current().size
    each: list[Any] = [mine] * size
    if size > 1:
        dist.all_gather_object(each, mine)
    return each


def _latest(state: State) -> dict[str, float]:
    return dict(state.history[-1])


def _report(state: State, *, first: bool) -> None:
    """Report a check to Ray Train; the first worker's report carries the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if first:
            (Path(folder) / STATE).write_bytes(state.to_bytes())
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(_latest(state), checkpoint=checkpoint)
    if first:
        # Until the controller has noted a report, it is lost with its worker: two intervals, not one.
        ray.train.get_all_reported_checkpoints(CheckpointConsistencyMode.COMMITTED)


@contextmanager
def _recorder(folder: Folder | None, state: State | None) -> Iterator[Callable[[State], None]]:
    """Yield a function that records one check: progress for the driver, and TensorBoard's curves.

    Args:
        folder: The run folder; None records nothing. TensorBoard needs a local one.
        state: The state that training continues from.
    """
    writer = None
    if folder is not None and folder.is_local:
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
        except ImportError:  # comes with ray[train]
            print("tensorboardX is not installed: no curves for TensorBoard", file=sys.stderr)
        else:
            # An interrupted attempt may have written points after its checkpoint: drop them.
            purge = state.step + 1 if state else None
            writer = SummaryWriter(folder.path(TENSORBOARD), purge_step=purge)

    def record(state: State) -> None:
        if folder is None:
            return
        values = _latest(state)
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        folder.write_json(PROGRESS, finite)
        if writer is not None:
            for key in ("loss", "learning_rate", "agreement"):
                if math.isfinite(values[key]):
                    writer.add_scalar(key, values[key], state.step)
            writer.flush()

    try:
        yield record
    finally:
        if writer is not None:
            writer.close()
