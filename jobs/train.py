"""Learn prompts from the features of `iqa embed`: without labels, or from a column such as MOS.

Writes a prompt file for `iqa score --prompts`, and beside it a page with learning curves. The same
command again goes on where it was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS, load_pairs

from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa train``."""

    features: str = option(help="output of `iqa embed`", metavar="F")
    output: str = option(help="the prompt file to write", metavar="P.safetensors")
    pairs: str = option(
        DEFAULT_PAIRS,
        help=f"base prompt pairs: {', '.join(NAMED_PAIRS)}, or a TOML file with [[pair]] tables",
        metavar="NAME|FILE",
    )
    teacher: str = option(
        "ensemble",
        help="whose order to learn: ensemble (mean score of the fixed prompts), per-pair (each pair "
        "its own), or column:NAME, a kept numeric column such as MOS, higher is better",
        metavar="T",
    )
    watch: tuple[str, ...] = option(
        (), help="kept numeric columns to report agreement with, and no more", metavar="COLUMN"
    )
    loss: str = option(
        "listmle",
        help="listmle, listnet, approx-ndcg, soft-spearman, ranknet, margin, fidelity, upl, or plcc",
    )
    loss_options: tuple[str, ...] = option(
        (), help="the loss's hyper-parameters, such as temperature=0.2", metavar="NAME=X"
    )
    order_weight: float = option(
        1.0,
        help="weight of the known order of degraded copies (`iqa embed --views`) beside the teacher's",
        metavar="X",
        minimum=0,
    )
    list_size: int = option(64, help="images of one list", metavar="N", minimum=2)
    lists: Literal["global", "local"] = option(
        "global", help="one list across all workers, or one for each of them"
    )
    context_length: int | None = option(
        None, help="context vectors (default: 8, or the tokens of --init)", metavar="N", minimum=1
    )
    position: Literal["front", "end", "middle"] = option(
        "front", help="where the context stands in a prompt"
    )
    context: Literal["shared", "per-side"] = option(
        "shared", help="one context, or one for the positive and one for the negative prompts"
    )
    init: str = option(
        "random", help="start of the context: random, or words", metavar="random|WORDS"
    )
    logit_scale: float | None = option(
        None, help="factor on cosine differences (default: the model's own)", metavar="G", above=0
    )
    optimizer: Literal["adamw", "sgd"] = option("adamw", help="with warm-up and cosine")
    learning_rate: float = option(0.002, help="at its highest", metavar="X", above=0)
    weight_decay: float = option(0.0, help="of the context", metavar="X", minimum=0)
    warmup: float = option(
        0.1, help="share of the steps with rising rate", metavar="X", minimum=0, maximum=1
    )
    steps: int | None = option(
        None, help="steps at most (default: 500, unless --epochs)", metavar="N", minimum=1
    )
    epochs: float | None = option(None, help="passes over the rows at most", metavar="X", above=0)
    checkpoint_steps: int = option(
        20,
        help="steps between two checkpoints, each with a look at the held-out rows",
        metavar="N",
        minimum=1,
    )
    patience: int = option(
        10, help="looks without better agreement that end training", metavar="N", minimum=1
    )
    holdout: float = option(
        0.1, help="share of the rows to measure on", metavar="X", above=0, maximum=0.9
    )
    holdout_by: str | None = option(
        None, help="kept column whose rows of equal value are held out together", metavar="COLUMN"
    )
    seed: int = option(0, help="of context and lists", metavar="N", minimum=0)
    num_workers: int = option(1, help="training workers", metavar="N", minimum=1)
    gpus_per_worker: float | None = option(
        None, help="GPUs of a worker (default: 1 if there are any)", metavar="X", minimum=0
    )
    max_failures: int = option(
        3, help="lost workers after which to give up", metavar="N", minimum=0
    )
    run_folder: str | None = option(
        None,
        help="for checkpoints, metrics.parquet and TensorBoard; all nodes must see it (default: "
        "beside the prompt file, with .run)",
        metavar="R",
    )
    address: str | None = option(
        None,
        help="Ray cluster (default: the one that this job runs in, else a local one)",
        metavar="ADDRESS",
    )


def run(config: Config) -> int:
    """Train; return the exit status."""
    load_pairs(config.pairs)  # before the imports: a wrong name should not take seconds
    from .training.run import run_training

    return run_training(config)
