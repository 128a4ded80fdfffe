"""Half precision on a CPU: time of image towers, and what becomes of `tiny`'s features and scores.

    python -m benchmarks.precision [--rounds 5] [--threads 1] [--json FILE]

Some processors, such as those with AMX, multiply in bf16 several times as fast as in fp32; elsewhere half
precision may be slower. Towers take turns within a round. ViT-B-32 and RN50 have random weights,
so only their times are shown; `tiny` is trained, and scores photographs, clean and distorted.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from benchmarks.decode_scores import files_of
from benchmarks.results import Table, save, show, spread
from benchmarks.towers import MEAN, MODEL_SIZE, STD, photograph, random_clip
from iqa_core import Scorer
from iqa_core.clip.encoder import Precision, Resolution
from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.evaluation.correlations import srcc
from iqa_core.preprocess import Preprocess

PRECISIONS: list[Precision] = [each for each in get_args(Precision) if each != "auto"]
#: Row of the table -> model, resolution and shape of a batch.
TOWERS: dict[str, tuple[str, Resolution, tuple[int, int, int]]] = {
    "tiny, 224 x 224": ("tiny", "model", (MODEL_SIZE["tiny"], 224, 224)),
    "ViT-B-32, 224 x 224": ("ViT-B-32", "model", (MODEL_SIZE["ViT-B-32"], 224, 224)),
    "RN50, 224 x 224": ("RN50", "model", (MODEL_SIZE["RN50"], 224, 224)),
    "RN50, native 1200 x 900": ("RN50", "native", (1, 900, 1200)),
}
_SIZE = 640
#: Names of Linux for what multiplies in half precision.
_INSTRUCTIONS = ("avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")


def towers_of(model: str, resolution: Resolution) -> dict[Precision, ImageTower]:
    """Return a tower in each precision."""
    if model == "tiny":
        built = {each: load_towers(model, resolution).image for each in PRECISIONS}
    else:
        visual = random_clip(model).visual
        built = {
            each: ImageTower(
                copy.deepcopy(visual),
                Preprocess((224, 224), MEAN, STD),
                resolution,
                width=visual.output_dim,
                digest="",
            )
            for each in PRECISIONS
        }
    return {each: tower.to_device("cpu", each) for each, tower in built.items()}


def times(rounds: int) -> tuple[Table, dict[str, dict[str, list[float]]]]:
    """Return milliseconds an image, by tower and precision."""
    raw: dict[str, dict[str, list[float]]] = {}
    rows = []
    for name, (model, resolution, shape) in TOWERS.items():
        towers, pixels = towers_of(model, resolution), photograph(*shape)
        found: dict[str, list[float]] = {each: [] for each in PRECISIONS}
        for number in range(rounds + 1):
            for precision in PRECISIONS:
                began = time.perf_counter()
                towers[precision].encode(pixels)
                if number:  # the first is a warm-up
                    found[precision].append((time.perf_counter() - began) / shape[0] * 1000)
        raw[name] = found
        speed = [np.divide(found["fp32"], found[each]).tolist() for each in PRECISIONS[1:]]
        row = [name, *(spread(found[each], "{:.1f}") for each in PRECISIONS), *map(spread, speed)]
        rows.append(row)
        print(*row, flush=True)
    columns = ["tower", *(f"{each}, ms" for each in PRECISIONS)]
    columns += [f"{each} is x times as fast as fp32" for each in PRECISIONS[1:]]
    return Table("Time of an image on the CPU, by precision", columns, rows), raw


def changes() -> tuple[Table, dict[str, list[float]]]:
    """Return what half precision changes in the scores of `tiny`."""
    files = files_of(_SIZE)
    found = {each: Scorer("tiny", precision=each).score(files) for each in PRECISIONS}
    exact = found["fp32"].score
    rows = []
    for each in PRECISIONS[1:]:
        change = np.abs(found[each].score - exact)
        order = f"{srcc(found[each].score, exact):.5f}"
        rows.append([each, f"{change.mean():.5f}", f"{change.max():.5f}", order])
    title = f"Scores of tiny in half precision against fp32, {len(files)} photographs"
    title += f", whose scores have a standard deviation of {exact.std():.3f}"
    columns = ["precision", "difference: mean", "max", "SRCC"]
    return Table(title, columns, rows), {each: one.score.tolist() for each, one in found.items()}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    speed, raw = times(arguments.rounds)
    scores, values = changes()
    show([speed, scores])
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else []
    has = ", ".join(each for each in _INSTRUCTIONS if each in flags) or "none that are known"
    notes = [f"Instructions of this processor for half precision: {has}."]
    tables = [speed, scores]
    save("precision", tables, notes=notes, raw={"ms": raw, "score": values}, path=arguments.json)


if __name__ == "__main__":
    main()
