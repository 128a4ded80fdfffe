"""What a training step costs, and what a training of a million features needs of memory.

    python -m benchmarks.train_step [--rounds 5] [--memory 10000 100000 1000000]

Steps, ViT-B-32 with random weights, a list of 64, one prompt pair and ten, on one thread: on cached
features with prompts cut at end-of-text; the same with all 77 tokens; and one that encodes its 64 images
first (pixels in memory: reading and decoding files comes on top).
All run in turns in one process, so that their ratios hold on a busy machine, and the best round of each
counts. Memory: one worker (a process of its own) trains `tiny`'s prompts on synthetic features of width
512 until it has seen each row; its peak of anonymous memory and of mapped pages is read from the kernel.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch

from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.clip.text_tower import TextTower
from iqa_core.losses.table import make_loss
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.scoring.margins import pair_margins
from iqa_core.training.data import DATA, TrainingData
from iqa_core.training.loop import train
from iqa_core.training.settings import Settings
from iqa_core.training.world import World, list_loss

_LIST = 64
_WIDTH = 512
_PAIRS = NAMED_PAIRS["clip-iqa"]


def vit() -> tuple[ImageTower, TextTower]:
    """Return ViT-B-32 with random weights."""
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # that the weights are random
    clip = open_clip.create_model("ViT-B-32")
    logging.disable(logging.NOTSET)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    return ImageTower(clip.visual, load_towers("tiny").preprocess), TextTower(clip, tokenizer)


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


def steps(rounds: int) -> None:
    """Time steps with one pair and with ten."""
    image, text = vit()
    whole = copy.copy(text)
    whole.__class__ = Uncut
    pixels = np.random.default_rng(0).integers(0, 256, (_LIST, 224, 224, 3), dtype=np.uint8)
    features = image.encode(pixels).half().clone()
    targets = torch.rand(_LIST, 1, dtype=torch.float64)
    loss = make_loss("listmle")
    for name in ("clip-iqa", "quality"):
        learner = PromptLearner(text, NAMED_PAIRS[name])

        def step(tower: TextTower, rows: torch.Tensor, learner=learner) -> torch.Tensor:
            learner.context.grad = None
            margins = pair_margins(learner(tower), rows, 100.0)
            list_loss(margins, targets, loss, "global", World()).backward()
            return learner.context.grad

        gradients = step(text, features), step(whole, features)
        np.testing.assert_allclose(*gradients, rtol=1e-2, atol=1e-5)
        times = seconds(
            {
                "cached features, prompts cut at end-of-text": lambda s=step: s(text, features),
                "cached features, all 77 tokens": lambda s=step: s(whole, features),
                "encodes its images first": lambda s=step: s(text, image.encode(pixels).clone()),
            },
            rounds,
        )
        first = next(iter(times.values()))
        print(f"{len(learner.pairs)} prompt pairs, {len(learner.symbols)} tokens to run")
        for what, value in times.items():
            print(f"  {what:44s} {1000 * value:9.1f} ms  x {value / first:.1f}", flush=True)


# Memory -------------------------------------------------------------------------------------------


def write_synthetic(folder: Path, rows: int) -> None:
    """Write data as `iqa train` does, a piece at a time."""
    generator = np.random.default_rng(0)
    sizes = {"train": rows, "held_out": 5000}
    for part, count in sizes.items():
        with (folder / f"{part}.features").open("wb") as features:
            for start in range(0, count, 10_000):
                size = (min(10_000, count - start), _WIDTH)
                values = generator.standard_normal(size, dtype=np.float32)
                values /= np.linalg.norm(values, axis=1, keepdims=True)
                features.write(values.astype(np.float16).tobytes())
        (folder / f"{part}.targets").write_bytes(generator.random(count).tobytes())
    (folder / "held_out.fixed_scores").write_bytes(generator.random(5000).tobytes())
    document = {"rows": rows, "held_out_rows": 5000, "unused": 0, "width": _WIDTH, "views": 0}
    document |= {"pairs": len(_PAIRS), "teacher": "ensemble", "watched": [], "trust": []}
    (folder / DATA).write_text(json.dumps(document))


def kernel(field: str) -> float:
    """Return a field of this process's status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":"))) / 1024


class Wide(TextTower):
    """`tiny`'s text tower with features of width 512, as large models have."""

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """Read out features, and repeat them."""
        features = super()._project(x)
        repeated = features.repeat(1, _WIDTH // features.shape[1])
        return torch.nn.functional.normalize(repeated, dim=-1)


def worker(folder: str) -> None:
    """Train on all rows once and print the peaks of memory."""
    torch.set_num_threads(1)
    towers = load_towers("tiny")
    tower = towers.text
    tower.__class__ = Wide
    data = TrainingData.open(folder)
    learner = PromptLearner(tower, _PAIRS)
    peaks = {"RssAnon": 0.0, "RssFile": 0.0}
    passes = -(-data.rows // 4096)
    settings = Settings(
        list_size=4096 if data.rows > 4096 else 64,
        loss="plcc",
        steps=passes,
        checkpoint_steps=max(1, passes // 8),
        patience=10**6,
        logit_scale=towers.logit_scale,
    )

    def note_memory(_: object) -> None:
        for name in peaks:
            peaks[name] = max(peaks[name], kernel(name))

    before = kernel("RssAnon")
    train(learner, tower, data, settings, on_check=note_memory)
    print(json.dumps({"before": before, **peaks}))


def memory(counts: list[int]) -> None:
    print("\none worker's peak memory in MB, each row seen once (512-d, float16)")
    print("      rows   on disk   before   anonymous   mapped pages")
    for rows in counts:
        with tempfile.TemporaryDirectory() as folder:
            write_synthetic(Path(folder), rows)
            size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
            command = [sys.executable, "-m", "benchmarks.train_step", "--worker", folder]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(run.stdout)
        print(
            f"{rows:10,d} {size:9.0f} {found['before']:8.0f} {found['RssAnon']:11.0f} "
            f"{found['RssFile']:14.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    torch.set_num_threads(1)
    print(
        f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}"
    )
    if arguments.rounds:
        steps(arguments.rounds)
    if arguments.memory:
        memory(arguments.memory)


if __name__ == "__main__":
    main()
