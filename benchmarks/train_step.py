"""What a training step costs, how two workers share it, and how long a large cache takes to start from.

    python -m benchmarks.train_step [--rounds 5] [--rows 100000000]

Steps: ViT-B-32 with random weights, a list of 64, one prompt pair and ten, on one thread: on cached
features with prompts cut at end-of-text; the same with all 77 tokens; and one that encodes its 64 images
first (pixels in memory: reading and decoding files comes on top). All run in turns in one process, so that
their ratios hold on a busy machine, and the best round of each counts.
Contexts: ten pairs and three contexts in one pass, against three passes.
Workers: the same step on one process and shared by two (gloo, one thread each), in turns; the best of the
rounds counts.
Start: a cache of so many synthetic rows (part files of 4,000 rows of width 512 that are links to one), from
opening it until the rows to train on are written; peak of the process's anonymous memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from benchmarks.results import Table, save, show
from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.clip.text_tower import TextTower
from iqa_core.columns import EMBEDDING
from iqa_core.losses.table import make_loss
from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.scoring.features import PromptFeatures
from iqa_core.scoring.margins import pair_margins
from iqa_core.tables.feature_cache import FeatureCache, feature_column
from iqa_core.training.check import HeldOutCheck
from iqa_core.training.data import TrainingData
from iqa_core.training.loop import train
from iqa_core.training.settings import Settings
from iqa_core.training.split import plan_training_data
from iqa_core.training.write import write_training_data

_LIST = 64
_WIDTH = 512
_CONTEXTS = 3


def vit() -> tuple[ImageTower, TextTower]:
    """Return ViT-B-32 with random weights."""
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # that the weights are random
    clip = open_clip.create_model("ViT-B-32")
    logging.disable(logging.NOTSET)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    image = ImageTower(clip.visual, load_towers("tiny").preprocess, width=_WIDTH, digest="")
    return image, TextTower(clip, tokenizer)


class Uncut(TextTower):
    """The text tower as CoOp runs it: all positions, also those behind end-of-text."""

    def encode_tree(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        ends: torch.Tensor,
    ) -> torch.Tensor:
        """Encode each prompt by itself, padded to the tower's length."""
        paths = [(mask[end] == 0).nonzero()[:, 0] for end in ends]
        rows = torch.nn.utils.rnn.pad_sequence([embeddings[path] for path in paths], True)
        x = torch.nn.functional.pad(rows, (0, 0, 0, self.context_length - rows.shape[1]))
        x = self.transformer(x + self.positional_embedding, attn_mask=self.attn_mask)
        return self._project(x[torch.arange(len(x)), positions[ends]])


def seconds(work, rounds: int) -> dict[str, float]:
    """Return the best seconds of each piece of work; all take turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def steps(rounds: int) -> list[list[str]]:
    """Time steps with one pair and with ten, and three contexts in one pass."""
    image, text = vit()
    whole = copy.copy(text)
    whole.__class__ = Uncut
    pixels = np.random.default_rng(0).integers(0, 256, (_LIST, 224, 224, 3), dtype=np.uint8)
    features = image.encode(pixels).half().clone()
    targets = torch.rand(1, _LIST, dtype=torch.float64)
    loss = make_loss("listmle")
    rows = []
    for name in ("clip-iqa", "quality"):
        learner = PromptLearner(text, NAMED_PAIRS[name])

        def step(tower: TextTower, rows: torch.Tensor, learner: Any = learner) -> torch.Tensor:
            learner.context.grad = None
            prompts = learner(tower).flatten(0, -3)
            loss(pair_margins(prompts, rows, 100.0).T.contiguous(), targets).sum().backward()
            gradient: torch.Tensor = learner.context.grad
            return gradient

        gradients = step(text, features), step(whole, features)
        np.testing.assert_allclose(*gradients, rtol=1e-2, atol=1e-4)
        three = PromptEnsemble([learner] * _CONTEXTS)
        times = seconds(
            {
                "cached features, prompts cut at end-of-text": lambda s=step: s(text, features),
                "cached features, all 77 tokens": lambda s=step: s(whole, features),
                "three contexts in one pass": lambda s=step, t=three: s(text, features, t),
                "encodes its images first": lambda s=step: s(text, image.encode(pixels).clone()),
            },
            rounds,
        )
        first = next(iter(times.values()))
        rows += [
            [f"{name}: {what}", f"{1000 * value:.0f} ms", f"x {value / first:.1f}"]
            for what, value in times.items()
        ]
    return rows


# Workers ------------------------------------------------------------------------------------------


def synthetic(folder: Path, links: int, rows: int = 4000) -> FeatureCache:
    """Write a cache whose part files are links to one."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((rows, _WIDTH), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    (folder / "_run").mkdir(parents=True)
    table = {
        "manifest_file": ["m.parquet"] * rows,
        "manifest_row": pa.array(range(rows), pa.int64()),
    }
    table |= {"status": ["ok"] * rows, EMBEDDING: feature_column(values)}
    pq.write_table(pa.table(table), folder / "part-00000000.parquet", row_group_size=1000)
    for link in range(1, links):
        os.link(folder / "part-00000000.parquet", folder / f"part-{link:08d}.parquet")
    (folder / "_run" / "fingerprint.json").write_text(json.dumps({"model": "none"}))
    (folder / "_run" / "plan.json").write_text("{}")
    return FeatureCache(str(folder))


def fixed_prompts(pairs: int) -> PromptFeatures:
    """Return random unit features of base prompts."""
    values = np.random.default_rng(1).standard_normal((pairs, 2, _WIDTH)).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return PromptFeatures(tuple(map(str, range(pairs))), values, 100.0, "")


def worker(folder: str, rank: int, size: int, rounds: int) -> None:
    """Time steps of this process's part of the prompts; the first one prints the best."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{folder}/init{size}", rank=rank, world_size=size)
    _, text = vit()
    pairs = NAMED_PAIRS["quality"]
    ensemble = PromptEnsemble([PromptLearner(text, pairs, seed=seed) for seed in range(_CONTEXTS)])
    data = TrainingData.open(f"{folder}/data")
    times: list[float] = []

    def note(_: object) -> None:
        times.append(time.perf_counter())

    # A check of the held-out rows follows each group of steps; it is left out of the time.
    settings = Settings(steps=3 * rounds, checkpoint_steps=3, logit_scale=100.0, meaning=0.5)
    began: list[float] = []
    inner = HeldOutCheck.update

    def update(self: HeldOutCheck, *arguments: Any) -> None:
        began.append(time.perf_counter())
        inner(self, *arguments)

    HeldOutCheck.update = update  # type: ignore[method-assign]
    train(ensemble, text, data, settings, on_check=note)
    if rank == 0:
        best = min(end - start for start, end in zip(times, began[1:], strict=False)) / 3
        print(json.dumps(best))


def workers(rounds: int) -> list[list[str]]:
    """Time the same training on one process and on two."""
    found: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = synthetic(Path(folder) / "cache", 1)
        plan = plan_training_data(cache, 10)
        write_training_data(cache, plan, f"{folder}/data", fixed_prompts(10))
        for size in (1, 2, 1, 2):
            Path(folder, f"init{size}").unlink(missing_ok=True)
            command = [sys.executable, "-m", "benchmarks.train_step", "--rounds", str(rounds)]
            running = [
                subprocess.Popen(
                    [*command, "--worker", folder, str(rank), str(size)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for rank in range(size)
            ]
            said = [process.communicate()[0] for process in running]
            found[size] = min(found.get(size, float("inf")), json.loads(said[0]))
    return [
        ["one worker", f"{1000 * found[1]:.0f} ms", ""],
        ["two workers", f"{1000 * found[2]:.0f} ms", f"x {found[1] / found[2]:.2f}"],
    ]


def start(rows: int) -> list[list[str]]:
    """Time how a training starts from a large cache."""
    with tempfile.TemporaryDirectory() as folder:
        synthetic(Path(folder) / "cache", max(1, rows // 4000))
        began = time.perf_counter()
        cache = FeatureCache(f"{folder}/cache")
        plan = plan_training_data(cache, 10, most_rows=64_000)
        data = write_training_data(cache, plan, f"{folder}/data", fixed_prompts(10))
        seconds = time.perf_counter() - began
    return [[f"{rows:,}", f"{data.rows:,}", f"{seconds:.1f} s", f"{kernel('VmHWM'):,.0f} MB"]]


def kernel(field: str) -> float:
    """Return a field of this process's status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":"))) / 1024


def main() -> None:
    """Print and store the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, rank, size = arguments.worker
        worker(folder, int(rank), int(size), arguments.rounds)
        return
    torch.set_num_threads(1)
    tables = []
    if arguments.rows:
        head = ["rows of the cache", "rows to train on", "time", "peak of resident memory"]
        tables.append(
            Table("Start from a large cache (512-d, float16)", head, start(arguments.rows))
        )
    if arguments.rounds:
        head = ["ViT-B-32, ten pairs, three contexts", "step", "ratio"]
        tables.append(Table("Steps shared by workers", head, workers(arguments.rounds)))
        head = ["ViT-B-32", "step", "ratio"]
        tables.append(Table("Steps on one thread", head, steps(arguments.rounds)))
    show(tables)
    save("train_step", tables)


if __name__ == "__main__":
    main()
