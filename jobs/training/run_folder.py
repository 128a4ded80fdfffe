"""The run folder of `iqa train`: its files, the training that it belongs to, and what is kept.

During training it holds the rows (memory-mapped by the workers), checkpoints and progress; afterwards it
keeps ``metrics.parquet`` and TensorBoard's curves.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core import __version__
from iqa_core.errors import InputError
from iqa_core.losses.table import find_loss
from iqa_core.redaction import error_line
from iqa_core.storage.folder import Folder
from iqa_core.training.data import DATA, FILES, TrainingData
from iqa_core.training.write import write_training_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.prompts.ensemble import PromptEnsemble
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.feature_cache import FeatureCache
    from iqa_core.training.settings import Settings
    from iqa_core.training.split import DataPlan
    from iqa_core.training.state import State

    from .config import Config

__all__ = [
    "CHECKPOINTS",
    "END",
    "METRICS",
    "PROGRESS",
    "RUN",
    "STARTS",
    "STATE",
    "TENSORBOARD",
    "absolute",
    "begin_training",
    "describe_training",
    "open_data",
    "tidy",
    "write_metrics",
]

#: The version of a run folder's format during training; others are not resumed.
_FORMAT = 4

RUN = "run.json"
PROGRESS = "progress.json"
STARTS = "start-*.json"
END = "end.json"
METRICS = "metrics.parquet"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
#: The file of a checkpoint.
STATE = "state.pt"


def describe_training(
    config: Config,
    cache: FeatureCache,
    settings: Settings,
    data: TrainingData,
    learner: PromptEnsemble,
    clean: FeatureCache | str,
) -> dict[str, Any]:
    """Return everything that determines the result; equal documents give equal prompts."""
    document = {
        "version": __version__,
        "run_folder_format": _FORMAT,
        "features": cache.tower,
        "feature_files": sha256("\n".join(cache.parts).encode()).hexdigest()[:16],
        "rows": {"train": data.rows, "held_out": data.held_out_rows, "unused": data.unused},
        "views": data.views,
        "recipe": config.recipe,
        "clean_features": clean if isinstance(clean, str) else [clean.tower, clean.parts],
        "seeds": config.seeds,
        "lower_is_better": config.lower_is_better,
        "pair_weights": config.pair_weights,
        "write": config.write,
        "pairs": [asdict(pair) for pair in learner.pairs],
        "teacher": config.teacher,
        "watch": list(config.watch),
        "holdout": config.holdout,
        "holdout_by": config.holdout_by,
        "context_length": learner.context_length,
        "position": config.position,
        "context": config.context,
        "init": config.init,
        "num_workers": config.num_workers,
        "loss_package": find_loss(settings.loss).package,
        **asdict(settings),
    }
    return dict(json.loads(json.dumps(document)))


def begin_training(folder: Folder, training: Mapping[str, Any]) -> None:
    """Begin a training in a run folder, or continue the one in it.

    Args:
        folder: The run folder.
        training: What :func:`describe_training` returns for this training.

    Raises:
        InputError: If another training was started in it and not finished, or it holds files of others.
    """
    if not folder.exists(RUN):
        _refuse_others(folder)
        tidy(folder, keep=())
        folder.write_json(RUN, training)
        return
    before = folder.read_json(RUN)
    for key in ("version", "run_folder_format"):
        if before.get(key) != training[key]:
            raise InputError(
                f"--run-folder {folder.uri} holds an unfinished training of another version of this "
                f"program ({before.get('version')}): finish it with that version, or remove the folder, or "
                "name another"
            )
    for key, value in training.items():
        if before.get(key) != value:
            raise InputError(
                f"{key} changed from {before.get(key)!r} to {value!r} since the unfinished training in "
                f"--run-folder {folder.uri} was started: give the same options to finish it, or remove "
                "the folder, or name another"
            )
    print(f"continuing the unfinished training in {folder.uri}")


def _refuse_others(folder: Folder) -> None:
    """Refuse a folder with names of ours where no training of ours left them: they would be removed."""
    finished = folder.exists(METRICS)  # a finished training leaves these two
    ours = [*FILES, PROGRESS, END, CHECKPOINTS, *([] if finished else [TENSORBOARD])]
    for name in [*folder.list(STARTS), *ours]:
        if folder.exists(name):
            raise InputError(
                f"--run-folder {folder.uri} holds {name}, which no training of this program left there: "
                "name an empty folder, or remove it"
            )


def tidy(folder: Folder, keep: tuple[str, ...]) -> None:
    """Remove what this program wrote into a run folder.

    ``run.json`` is removed last, as it says that the training can be continued.

    Args:
        folder: The run folder.
        keep: Names of files and folders to keep.
    """
    for name in (CHECKPOINTS, TENSORBOARD):  # before METRICS, which says whose curves these are
        if name not in keep and folder.exists(name):
            folder.fs.rm(folder.path(name), recursive=True)
    names = [name for name in (*FILES, PROGRESS, METRICS, END) if name not in keep]
    for name in [*names, *folder.list(STARTS)]:
        folder.remove(name)
    folder.remove(RUN)


def open_data(
    cache: FeatureCache,
    plan: DataPlan,
    folder: Folder,
    prompts: PromptFeatures,
    judge: PromptFeatures | None = None,
) -> TrainingData:
    """Open the rows in a run folder; write them first if they are not there.

    Raises:
        InputError: If they can't be used, or written.
    """
    if folder.exists(DATA):
        return TrainingData.open(absolute(folder))
    try:
        return write_training_data(cache, plan, absolute(folder), prompts, judge)
    except InputError:
        tidy(folder, keep=())  # other options are to be free to try
        raise
    except OSError as error:
        raise InputError(
            f"--run-folder {folder.uri} can't be written: {error_line(error)}"
        ) from error


def write_metrics(folder: Folder, state: State) -> None:
    """Write the history of the checks as ``metrics.parquet``."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(state.history), buffer)
    folder.write(METRICS, buffer.getvalue())


def absolute(folder: Folder) -> str:
    """Return a folder's path or URI for any working directory: workers have their own."""
    return folder.root if folder.is_local else folder.uri
