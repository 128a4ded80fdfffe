"""Options of `iqa train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS

from ..options import option

__all__ = ["Config"]


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
        help="scores whose order is learned: ensemble (mean score of the fixed prompts), per-pair (each "
        "pair's own score), or column:NAME, a kept numeric column such as MOS, higher is better",
        metavar="T",
    )
    watch: tuple[str, ...] = option(
        (),
        help="kept numeric columns to report agreement with; they do not affect training",
        metavar="COLUMN",
    )
    loss: str = option(
        "listmle",
        help="ranking loss: listmle, listnet, approx-ndcg, soft-spearman, ranknet, margin, fidelity, upl, "
        "plcc, or the name of another package's loss (entry points of the group iqa.losses)",
    )
    loss_options: tuple[str, ...] = option(
        (), help="hyper-parameters of the loss, such as temperature=0.2", metavar="NAME=X"
    )
    order_weight: float = option(
        1.0,
        help="weight of the known order of degraded copies (`iqa embed --views`) relative to the teacher's "
        "order",
        metavar="X",
        minimum=0,
    )
    list_size: int = option(64, help="images per list", metavar="N", minimum=2)
    lists: Literal["global", "local"] = option(
        "global", help="one list across all workers, or one list per worker"
    )
    context_length: int | None = option(
        None,
        help="number of context vectors (default: 8, or the number of tokens of --init)",
        metavar="N",
        minimum=1,
    )
    position: Literal["front", "end", "middle"] = option(
        "front", help="position of the context in a prompt"
    )
    context: Literal["shared", "per-side"] = option(
        "shared",
        help="one context for all prompts, or one for the positive and one for the negative prompts",
    )
    init: str = option(
        "random",
        help="initial context: random, or words whose token embeddings are used",
        metavar="random|WORDS",
    )
    logit_scale: float | None = option(
        None,
        help="factor applied to cosine differences (default: the model's own)",
        metavar="G",
        above=0,
    )
    optimizer: Literal["adamw", "sgd"] = option(
        "adamw", help="optimizer; linear warm-up, cosine decay"
    )
    learning_rate: float = option(0.002, help="peak learning rate", metavar="X", above=0)
    weight_decay: float = option(0.0, help="weight decay of the context", metavar="X", minimum=0)
    warmup: float = option(
        0.1, help="share of the steps used for warm-up", metavar="X", minimum=0, maximum=1
    )
    steps: int | None = option(
        None,
        help="maximum number of steps (default: 500, unless --epochs is given)",
        metavar="N",
        minimum=1,
    )
    epochs: float | None = option(
        None, help="maximum number of passes over the rows", metavar="X", above=0
    )
    checkpoint_steps: int = option(
        20,
        help="steps between two checkpoints, each with a check on the held-out rows",
        metavar="N",
        minimum=1,
    )
    patience: int = option(
        10, help="stop after N checks without improvement", metavar="N", minimum=1
    )
    holdout: float = option(
        0.1,
        help="share of the rows held out to measure agreement",
        metavar="X",
        above=0,
        maximum=0.9,
    )
    holdout_by: str | None = option(
        None,
        help="kept column by which rows are held out: rows of equal value stay together",
        metavar="COLUMN",
    )
    seed: int = option(
        0, help="random seed of the initial context and of the lists", metavar="N", minimum=0
    )
    num_workers: int = option(1, help="number of training workers", metavar="N", minimum=1)
    gpus_per_worker: float | None = option(
        None, help="GPUs per worker (default: 1 if there are any)", metavar="X", minimum=0
    )
    max_failures: int = option(
        3,
        help="number of restarts after lost workers before giving up",
        metavar="N",
        minimum=0,
    )
    run_folder: str | None = option(
        None,
        help="folder for checkpoints, metrics.parquet and TensorBoard's curves; all nodes must be able to "
        "read and write it (default: next to the prompt file, with .run)",
        metavar="R",
    )
    address: str | None = option(
        None,
        help="Ray cluster (default: the one that this job runs in, else a local one)",
        metavar="ADDRESS",
    )
