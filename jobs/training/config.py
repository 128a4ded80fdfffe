"""Options of `iqa train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.errors import InputError
from iqa_core.prompts.pairs import DEFAULT_PAIRS, NAMED_PAIRS

from ..options import option

__all__ = ["Config", "check_options"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa train``."""

    features: str = option(help="output of `iqa embed`", metavar="F", path=True)
    clean_features: str | None = option(
        None,
        help="output of `iqa embed --views 4` of images known to be good: quality is learned by their "
        "degraded copies. best: take the tenth of --features with the highest scores (default: compare "
        "only the copies of one image with each other, which teaches less)",
        metavar="F2|best",
        path=True,
    )
    output: str = option(help="the prompt file to write", metavar="P.safetensors", path=True)
    pairs: str = option(
        DEFAULT_PAIRS,
        help=f"base prompt pairs: {', '.join(NAMED_PAIRS)}, or a TOML file with [[pair]] tables",
        metavar="NAME|FILE",
        path=True,
    )
    recipe: Literal["default", "seed", "weights"] = option(
        "default",
        help="default: learn from the fixed prompts' order, degraded copies and each pair's own order; "
        "seed: from the fixed prompts' order alone, by lists or pairs (--loss); weights: learn no context, "
        "but weigh the fixed pairs in closed form",
    )
    teacher: str = option(
        "ensemble",
        help="scores whose order is learned: ensemble (mean score of the fixed prompts), per-pair (each "
        "pair's own score), or column:NAME, a kept numeric column such as MOS, higher is better",
        metavar="T",
    )
    lower_is_better: bool = option(
        False, help="a low value of --teacher column:NAME is a good image, as in DMOS"
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
        "order; 0 ignores the copies, also as a measure of the teacher",
        metavar="X",
        minimum=0,
    )
    meaning: float = option(
        0.5,
        help="weight of each pair's own order by the fixed prompts, where there are several: a pair goes "
        "on measuring what it is named for; 0 also makes all pairs learn the order of quality alike",
        metavar="X",
        minimum=0,
    )
    pair_weights: bool = option(
        False,
        help="weigh the pairs in closed form, from degraded copies; `iqa score` uses the weights",
    )
    list_size: int = option(64, help="images per list", metavar="N", minimum=2)
    seeds: int = option(
        3,
        help="number of contexts, learned from as many random starts and lists; scores are averaged",
        metavar="K",
        minimum=1,
        maximum=32,
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
    learning_rate: float | None = option(
        None,
        help="peak learning rate (default: a tenth of the token embedding's standard deviation, 0.002 for "
        "OpenAI's weights)",
        metavar="X",
        above=0,
    )
    weight_decay: float = option(0.0, help="weight decay of the context", metavar="X", minimum=0)
    warmup: float = option(
        0.1, help="share of the steps used for warm-up", metavar="X", minimum=0, maximum=1
    )
    steps: int | None = option(
        None,
        help="number of steps, the last of which is kept (default: 1000, unless --epochs is given)",
        metavar="N",
        minimum=1,
    )
    epochs: float | None = option(
        None, help="maximum number of passes over the rows", metavar="X", above=0
    )
    checkpoint_steps: int = option(
        50,
        help="steps between two checkpoints, each with a check on the held-out rows",
        metavar="N",
        minimum=1,
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
        help="kept column by which rows are held out: rows of equal value stay together; give it where "
        "several images show the same",
        metavar="COLUMN",
    )
    write: Literal["auto", "learned"] = option(
        "auto",
        help="auto: write the fixed prompts unless the learned ones are better on held-out images (with "
        "--recipe seed: the learned ones); learned: write the learned ones",
    )
    seed: int = option(
        0, help="first random seed of initial contexts and lists", metavar="N", minimum=0
    )
    num_workers: int = option(1, help="number of training workers", metavar="N", minimum=1)
    min_workers: int | None = option(
        None,
        help="go on with as few workers as this while nodes are away, and with up to --num-workers again "
        "once they are back (default: --num-workers)",
        metavar="N",
        minimum=1,
    )
    gpus_per_worker: float | None = option(
        None, help="GPUs per worker (default: 1 if there are any)", metavar="X", minimum=0
    )
    wait_minutes: float | None = option(
        None,
        help="end a training that waits for a node that could hold a worker for longer than this "
        "(default: wait until there is one)",
        metavar="M",
        above=0,
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
        path=True,
    )
    shared_filesystem: bool = option(
        False,
        help="say that all nodes of the cluster see the same files: allows a local run folder on several "
        "nodes",
    )
    address: str | None = option(
        None,
        help="Ray cluster (default: the one that this job runs in, else a local one)",
        metavar="ADDRESS",
    )


def check_options(config: Config, *, has_copies: bool) -> None:
    """Refuse options that would have no effect.

    Args:
        config: The options.
        has_copies: Whether images have degraded copies.

    Raises:
        InputError: If one would have none.
    """
    if (config.pair_weights or config.recipe == "weights") and not has_copies:
        raise InputError(
            argument="recipe" if config.recipe == "weights" else "pair_weights",
            value=config.recipe if config.recipe == "weights" else True,
            limit="used with degraded copies, from which pairs are weighted",
            fix="make them by `iqa embed --views 4`",
        )
    if config.lower_is_better and not config.teacher.startswith("column:"):
        raise InputError(
            argument="lower_is_better",
            value=True,
            limit="used with --teacher column:NAME, whose direction it is",
            fix="leave it out",
        )
