"""Does training help, whatever prompts one starts with? Learned and fixed prompts on fresh photographs.

    python -m benchmarks.prompt_learning --photos photos --fresh fresh [--minutes 9]

The same command goes on where it stopped; when all is trained it writes
benchmarks/results/prompt_learning.json.

Protocol, fixed and committed before the first run on the fresh photographs:

* Training: 900 unlabelled crops of the photographs that `tiny` was trained on (`tools/tiny/photos.py`,
  Debian packages, unpacked below --photos), two thirds of them with a random distortion, and 300 clean
  crops with four degraded copies each, as `iqa embed --views 4` makes them (six kinds). Rows of one
  photograph are held out together.
* Test: the 35 photographs of `benchmarks/fresh_photos.py`, never used for anything here: one cut of each,
  clean and with 24 kinds of distortion at three levels. Labels: HaarPSI, and MDSI beside it, against the
  clean cut. Ten kinds have no relative among the copies of training (`UNRELATED`): they are reported by
  themselves too.
* Towers: `tiny`, whose text was fitted to HaarPSI, so that good starts have no headroom; and `tiny` with
  its text projection W turned, W expm(1.4 A), A seeded (0, 1, 2), antisymmetric, (G - G') / sqrt(2 D)
  with standard normal G: good starts then have about what CLIP's zero-shot prompts have (the angle was
  chosen by the fixed prompts' SRCC on the eight photographs of benchmarks/tiny_quality.py). Smaller
  angles, 0.7 and 1.1 of seed 0: default recipe only.
* Starts: twelve sets of base prompts, good and bad (`STARTS`).
* Ways of training (`METHODS`), 1,000 steps, list of 64, 8 vectors in front, learning rate as `iqa train`
  chooses it: `default` (clean copies, own order); `own copies` (no clean images); `best` (the best tenth
  as clean); `seed lists` and `seed pairs` (--recipe seed); `UPL` (top 16 a side, 500 steps); `weights`
  (fixed prompts, pairs weighted in closed form); `supervised` (learns HaarPSI of the 900 crops). `linear`
  is a ridge regression of HaarPSI on the features. Five seeds each; the file of `iqa train` has three.
* Measure: SRCC over all test images of the mean score of three contexts, less that of the fixed prompts.
  Interval and p: 2,000 resamples, each of the photographs (whole) and of three of the five contexts; p by
  Holm over the twelve starts of a tower and way. `written` is what `iqa train` would write (three
  contexts): learned or fixed.
* Asked for: with `default` no start significantly below fixed; every start whose headroom (supervised
  less fixed) is above 0.02 significantly above; the worst start gains most. What is not reached stands in
  the notes.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import expm
from sklearn.linear_model import RidgeCV

from benchmarks.prompt_learning_images import Images, prepare, train_caches
from benchmarks.results import Table, save, show
from iqa_core.clip.encoder import Towers
from iqa_core.clip.load import load_towers
from iqa_core.clip.text_tower import TextTower
from iqa_core.evaluation.correlations import srcc, weighted_srcc
from iqa_core.evaluation.significance import holm
from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.training.check import held_out_margins, mean_scores
from iqa_core.training.loop import train
from iqa_core.training.outcome import conclude_training
from iqa_core.training.settings import Settings, relative_rate
from iqa_core.training.split import plan_training_data
from iqa_core.training.write import write_training_data

#: Good and poor ones, single pairs and several.
STARTS: dict[str, tuple[PromptPair, ...]] = {
    "quality (10 pairs)": NAMED_PAIRS["quality"],
    "pyiqa (5 pairs)": NAMED_PAIRS["pyiqa"],
    "clip-iqa": NAMED_PAIRS["clip-iqa"],
    "good / bad": (PromptPair("good", "a good photo", "a bad photo"),),
    "sharp / blurry": (PromptPair("sharp", "Sharp photo.", "Blurry photo."),),
    "clean / noisy": (PromptPair("noise", "Clean photo.", "Noisy photo."),),
    "bright / dark": (PromptPair("bright", "Bright photo.", "Dark photo."),),
    "contrast": (PromptPair("contrast", "High contrast photo.", "Low contrast photo."),),
    "colorful / dull": (PromptPair("color", "Colorful photo.", "Dull photo."),),
    "beautiful / ugly": (PromptPair("beauty", "Beautiful photo.", "Ugly photo."),),
    "happy / sad": (PromptPair("happy", "Happy photo.", "Sad photo."),),
    "new / old": (PromptPair("new", "New photo.", "Old photo."),),
}
SEEDS, KEPT, RESAMPLES = 5, 3, 2000
HEADROOM = 0.02


@dataclass(frozen=True)
class Method:
    """A way of training.

    Attributes:
        loss: Name of the loss.
        clean: Where the images with copies come from: ``given``, ``own`` or ``best``.
        order_weight: Of the known order.
        meaning: Of each pair's own order.
        teacher: What is learned from.
        steps: Number of steps; 0 weighs the fixed pairs.
    """

    loss: str = "listmle"
    clean: str = "given"
    order_weight: float = 1.0
    meaning: float = 0.5
    teacher: str = "ensemble"
    steps: int = 1000


METHODS = {
    "default": Method(),
    "own copies": Method(clean="own"),
    "best": Method(clean="best"),
    "seed lists": Method(order_weight=0.0, meaning=0.0),
    "seed pairs": Method("ranknet", order_weight=0.0, meaning=0.0),
    "UPL": Method("upl", order_weight=0.0, meaning=0.0, steps=500),
    "weights": Method(steps=0),
    "supervised": Method(order_weight=0.0, meaning=0.0, teacher="column:reference"),
}
#: Tower -> (seed, angle), and whether all ways are trained with it.
TOWERS = {
    "tiny": (None, 0.0, True),
    "turned 0": (0, 1.4, True),
    "turned 1": (1, 1.4, True),
    "turned 2": (2, 1.4, True),
    "turned 0 by 0.7": (0, 0.7, False),
    "turned 0 by 1.1": (0, 1.1, False),
}
#: Kinds without a relative among the copies of training.
UNRELATED = (
    *("jitter", "aliasing", "overexposed", "haze", "colour_cast", "desaturation"),
    *("posterise", "blocks", "holes", "oversharpen"),
)


@functools.cache
def tower(name: str) -> Towers:
    """Return `tiny`, with its text projection turned."""
    towers = load_towers("tiny")
    seed, angle, _ = TOWERS[name]
    text = towers.text
    assert isinstance(text, TextTower)
    if seed is not None:
        width = text.text_projection.shape[1]
        draw = np.random.default_rng(seed).normal(size=(width, width)) / np.sqrt(2 * width)
        turn = torch.from_numpy(expm(angle * (draw - draw.T)).astype(np.float32))
        with torch.no_grad():
            text.text_projection.copy_(text.text_projection @ turn)
    return replace(towers, load_text=lambda: text)


def run_cell(name: str, start: str, method: Method, images: Images, folder: Path) -> dict:
    """Train one start with one method; return the test scores of fixed prompts and contexts."""
    towers, pairs = tower(name), STARTS[start]
    prompts = encode_prompts(towers, pairs)
    cache, clean = train_caches(folder)
    plan = plan_training_data(
        cache,
        len(pairs),
        teacher=method.teacher,
        holdout=0.15,
        holdout_by="photo",
        clean=clean if method.clean == "given" else method.clean,
        weighs_teacher=method.order_weight > 0,
    )
    judge = encode_prompts(towers, NAMED_PAIRS["quality"]) if method.clean == "best" else None
    data = write_training_data(cache, plan, str(folder / "data"), prompts, judge)
    text = towers.text
    assert isinstance(text, TextTower)
    length = 8 if method.steps else 0
    seeds = range(SEEDS if method.steps else 1)
    ensemble = PromptEnsemble(
        [PromptLearner(text, pairs, context_length=length, seed=seed) for seed in seeds]
    )
    fixed = PromptEnsemble([PromptLearner(text, pairs, context_length=0)])
    began, history = time.monotonic(), []
    if method.steps:
        settings = Settings(
            loss=method.loss,
            order_weight=method.order_weight,
            meaning=method.meaning,
            learning_rate=relative_rate(text.token_embedding.weight),
            steps=method.steps,
            checkpoint_steps=method.steps,
            logit_scale=towers.logit_scale,
        )
        history = train(ensemble, text, data, settings).history
    seconds = time.monotonic() - began
    written = ensemble
    if len(seeds) > KEPT:
        written = PromptEnsemble(
            [PromptLearner(text, pairs, context_length=length) for _ in range(KEPT)]
        )
        with torch.no_grad():
            written.context.copy_(ensemble.context[:KEPT])
    outcome = conclude_training(
        written, towers, data, prompts, history=history, weigh_pairs=not method.steps
    )
    margins = held_out_margins(ensemble, text, images.features, towers.logit_scale)
    each = [mean_scores(margins[:, k : k + 1], outcome.weights) for k in range(len(seeds))]
    before = held_out_margins(fixed, text, images.features, towers.logit_scale)
    return {
        "fixed": mean_scores(before).tolist(),
        "each": [one.tolist() for one in each],
        "written": "learned" if outcome.is_better else "fixed",
        "reason": outcome.reason,
        "findings": [asdict(finding) for finding in outcome.findings],
        "between": outcome.between,
        "own": {pair.name: pair.own for pair in outcome.health},
        "seconds": seconds,
    }


def compare(cell: dict, label: np.ndarray, photo: np.ndarray) -> dict:
    """Return SRCC of fixed and learned prompts, their difference, its interval and p."""
    fixed, each = np.array(cell["fixed"]), np.array(cell["each"])
    rng = np.random.default_rng(0)
    names, code = np.unique(photo, return_inverse=True)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    kept = min(KEPT, len(each))
    sets = [tuple(sorted(rng.integers(len(each), size=kept))) for _ in range(RESAMPLES)]
    before = weighted_srcc(fixed, label, drawn[:, code])
    after = np.empty(RESAMPLES)
    for chosen in set(sets):
        rows = [n for n, one in enumerate(sets) if one == chosen]
        after[rows] = weighted_srcc(each[list(chosen)].mean(axis=0), label, drawn[rows][:, code])
    difference = after - before
    low, high = np.quantile(difference, (0.025, 0.975))
    beyond = min((difference <= 0).sum(), (difference >= 0).sum())
    alone = [srcc(one, label) for one in each]
    return {
        "fixed": srcc(fixed, label),
        "learned": srcc(each[:kept].mean(axis=0), label),
        "spread": float(np.std(alone)),
        "gain": srcc(each[:kept].mean(axis=0), label) - srcc(fixed, label),
        "low": float(low),
        "high": float(high),
        "p": min(1.0, 2 * (1 + int(beyond)) / (1 + RESAMPLES)),
    }


def wanted() -> list[tuple[str, str, str]]:
    """Return tower, method and start of every cell, what matters most first."""
    cells = [(t, m, s) for m in METHODS for t in TOWERS for s in STARTS if m == "default"]
    cells += [
        (t, m, s)
        for m in METHODS
        for t in TOWERS
        for s in STARTS
        if m != "default" and TOWERS[t][2]
    ]
    return sorted(cells, key=lambda cell: not TOWERS[cell[0]][2])


def linear(images: Images, folder: Path) -> float:
    """Return the SRCC with HaarPSI of a ridge regression of HaarPSI on the features."""
    features, labels = images.labelled(folder)
    model = RidgeCV(np.logspace(-3, 2, 11)).fit(features.astype(np.float64), labels)
    return srcc(model.predict(images.features.astype(np.float64)), images.haarpsi)


def report(cells: dict[tuple[str, str, str], dict], images: Images, folder: Path) -> None:
    """Compare, print the tables and store them."""
    found: dict[str, dict] = {}
    unrelated = np.isin(images.kind, UNRELATED) | (images.kind == "none")
    for (name, method, start), cell in cells.items():
        one = compare(cell, images.haarpsi, images.photo)
        one["mdsi"] = compare(cell, images.mdsi, images.photo)
        part = {
            "fixed": np.array(cell["fixed"])[unrelated],
            "each": np.array(cell["each"])[:, unrelated],
        }
        one["unrelated"] = compare(part, images.haarpsi[unrelated], images.photo[unrelated])
        kept = ("written", "reason", "findings", "between", "own", "seconds")
        found[f"{name} | {method} | {start}"] = one | {key: cell[key] for key in kept}
    tables, notes = [], []
    for name in TOWERS:
        methods = [m for m in METHODS if any((name, m, s) in cells for s in STARTS)]
        rows = []
        for start in STARTS:
            row = [start]
            for method in methods:
                one = found.get(f"{name} | {method} | {start}")
                if one and len(row) == 1:
                    row.append(f"{one['fixed']:.3f}")
                row.append("" if one is None else f"{one['learned']:.3f} ({one['gain']:+.3f})")
            rows.append(row)
        if methods:
            title = (
                f"{name}: SRCC with HaarPSI, mean score of {KEPT} contexts (and gain over fixed)"
            )
            tables.append(Table(title, ["start", "fixed", *methods], rows))
    summary = []
    for name in TOWERS:
        for method in METHODS:
            there = {s: found.get(f"{name} | {method} | {s}") for s in STARTS}
            ones = {s: one for s, one in there.items() if one}
            if not ones:
                continue
            p = dict(zip(ones, holm([one["p"] for one in ones.values()]), strict=True))
            above = [s for s, one in ones.items() if p[s] < 0.05 and one["gain"] > 0]
            below = [s for s, one in ones.items() if p[s] < 0.05 and one["gain"] < 0]
            for s, one in ones.items():
                one["p_holm"] = p[s]
            best = max(ones, key=lambda s: ones[s]["gain"])
            worst = min(ones, key=lambda s: ones[s]["fixed"])
            cells_of = list(ones.values())
            summary.append(
                [
                    *(name, method, f"{len(above)} of {len(ones)}", str(len(below))),
                    f"{min(one['gain'] for one in cells_of):+.3f}",
                    f"{np.median([one['unrelated']['gain'] for one in cells_of]):+.3f}",
                    f"{np.median([one['mdsi']['gain'] for one in cells_of]):+.3f}",
                    str(sum(one["written"] == "learned" for one in cells_of)),
                    "yes" if best == worst else f"no ({best})",
                ]
            )
            if method == "default":
                notes += _not_reached(name, ones, p, found)
    head = [
        "tower",
        "way",
        "above fixed (Holm)",
        "below",
        "lowest gain",
        "unrelated kinds, median gain",
    ]
    head += ["MDSI, median gain", "iqa train writes learned", "worst start gains most"]
    tables.append(Table("Starts above and below their fixed prompts", head, summary))
    notes.append(f"Linear readout with labels: SRCC {linear(images, folder):.3f} with HaarPSI.")
    missing = len(wanted()) - len(cells)
    if missing:
        notes.append(f"{missing} of {len(wanted())} trainings are missing here.")
    notes.append(
        f"{len(images.haarpsi):,} test images of {len(np.unique(images.photo))} photographs; "
        f"{len(cells)} trainings, {sum(cell['seconds'] for cell in cells.values()) / 3600:.1f} h."
    )
    show(tables)
    print("\n".join(notes))
    save("prompt_learning", tables, notes=notes, raw=found)


def _not_reached(name: str, ones: dict, p: dict, found: dict) -> list[str]:
    notes = []
    for start, one in ones.items():
        supervised = found.get(f"{name} | supervised | {start}")
        room = supervised["learned"] - one["fixed"] if supervised else float("nan")
        if p[start] < 0.05 and one["gain"] < 0:
            notes.append(f"{name}, {start}: significantly below fixed ({one['gain']:+.3f}).")
        if room > HEADROOM and not (p[start] < 0.05 and one["gain"] > 0):
            notes.append(
                f"{name}, {start}: headroom {room:.3f}, gain {one['gain']:+.3f}, p {p[start]:.2g}."
            )
    return notes


def main() -> None:
    """Train what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--fresh", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("prompt-learning"))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--report", action="store_true", help="report what there is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    images = prepare(arguments.photos, arguments.fresh, arguments.folder)
    store = arguments.folder / "cells"
    store.mkdir(exist_ok=True)
    cells = {}
    for key in wanted():
        path = store / ("_".join(key).replace("/", "-").replace(" ", "-") + ".json")
        if path.exists():
            cells[key] = json.loads(path.read_text())
            continue
        if arguments.report or time.monotonic() - began > 60 * arguments.minutes:
            continue
        name, method, start = key
        cells[key] = run_cell(name, start, METHODS[method], images, arguments.folder)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(cells[key]))
        temporary.rename(path)
        print(*key, cells[key]["written"], f"{cells[key]['seconds']:.0f} s", flush=True)
    if len(cells) == len(wanted()) or arguments.report:
        report(cells, images, arguments.folder)
    else:
        print(f"{len(cells)} of {len(wanted())} done: run it again", file=sys.stderr)


if __name__ == "__main__":
    main()
