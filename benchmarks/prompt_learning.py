"""Does training help, whatever prompts one starts with? Teacher and student side by side.

    python -m benchmarks.prompt_learning --photos photos [--seeds 5] [--figure prompt_learning.svg]

Training: unlabelled crops of the photographs that `tiny` was trained on (`tools/tiny/photos.py`,
unpacked below --photos), each with a random distortion or none, and four degraded copies of each
(`iqa embed --views 4`). Test: the held-out photographs and all distortions of benchmarks/tiny_quality.py,
never looked at in training; SRCC of the score with HaarPSI against the clean cut.

For each start (a set of base prompts) and each way of training: the mean over seeds and the spread
(standard deviation over seeds). Two rows with labels show the limit of these features:
`supervised` learns HaarPSI itself on the training crops, by prompts from the start named; the line below
the table is a linear readout of the features, learned on the same labels (ridge on ranks).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.stats import rankdata
from sklearn.linear_model import RidgeCV

from benchmarks.tiny_quality import cuts, held_out_photos
from iqa_core.clip.encoder import Towers
from iqa_core.clip.load import load_towers
from iqa_core.evaluation.correlations import srcc
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import image_scores_f64
from iqa_core.tables.feature_cache import FeatureCache, features_of
from iqa_core.training.check import held_out_margins
from iqa_core.training.loop import train
from iqa_core.training.settings import Settings
from iqa_core.training.split import plan_training_data
from iqa_core.training.write import write_training_data
from jobs.cli import main as iqa
from tools.distortions import KINDS, LEVELS, apply
from tools.tiny.photos import find_photos, load_photo
from tools.tiny.render import full_reference

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


@dataclass(frozen=True)
class Method:
    """A way of training: the loss, the weight of the known order, and what is learned from."""

    loss: str
    order_weight: float = 0.0
    teacher: str = "ensemble"


METHODS = {
    "UPL": Method("upl"),
    "pairwise": Method("ranknet"),
    "listwise": Method("listmle"),
    "listwise + views": Method("listmle", order_weight=1.0),
    "supervised": Method("listmle", teacher="column:reference"),
}


def write_images(folder: Path, images: list[np.ndarray], references: list[float]) -> None:
    """Write images and their manifest."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png", compress_level=1)
    uris = [f"{number}.png" for number in range(len(images))]
    pq.write_table(pa.table({"uri": uris, "reference": references}), folder / "manifest.parquet")


def training_images(photos: Path, crops: int) -> tuple[list[np.ndarray], list[float]]:
    """Return crops of training photographs, a third clean, and their HaarPSI."""
    rng = np.random.default_rng(0)
    found = find_photos(photos)
    images, references = [], []
    for number in range(crops):
        photo = load_photo(found[number % len(found)])
        side = int(rng.integers(240, min(480, *photo.shape[:2]) + 1))
        top, left = (int(rng.integers(edge - side + 1)) for edge in photo.shape[:2])
        clean = np.ascontiguousarray(photo[top : top + side, left : left + side])
        image = clean
        if number % 3:
            kind = str(rng.choice(KINDS))
            image = apply(clean, kind, int(rng.choice(LEVELS)), seed=number)
        images.append(image)
        references.append(full_reference(image, clean) if number % 3 else 1.0)
    return images, references


def test_images(every: int) -> tuple[list[np.ndarray], list[float]]:
    """Return held-out cuts with all distortions, and their HaarPSI."""
    images, references = [], []
    for photo in held_out_photos().values():
        for cut in cuts(photo, seed=0)[::every]:
            images.append(cut)
            references.append(1.0)
            for kind in KINDS:
                for level in LEVELS:
                    images.append(apply(cut, kind, level))
                    references.append(full_reference(images[-1], cut))
    return images, references


def embed(folder: Path, views: int) -> FeatureCache:
    """Encode a manifest by `iqa embed`."""
    words = ["embed", "--manifest", str(folder / "manifest.parquet"), "--keep", "reference"]
    status = iqa([*words, "--output", str(folder) + "-features", "--views", str(views)])
    if status:
        sys.exit(status)
    return FeatureCache(str(folder) + "-features")


def test_agreement(learner: PromptLearner, towers: Towers, test: tuple[np.ndarray, ...]) -> float:
    """Return the student's SRCC with HaarPSI on the test images."""
    margins = held_out_margins(learner, towers.text, test[0], towers.logit_scale)
    return srcc(image_scores_f64(margins)[:, 0].numpy(), test[1])


def students(
    method: Method,
    pairs: tuple[PromptPair, ...],
    cache: FeatureCache,
    towers: Towers,
    test: tuple[np.ndarray, ...],
    arguments: argparse.Namespace,
) -> list[float]:
    """Train with each seed; return the students' SRCC on the test images."""
    reached = []
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_training_data(cache, len(pairs), teacher=method.teacher)
        if not method.order_weight:
            plan = replace(plan, data=replace(plan.data, views=0))
        data = write_training_data(cache, plan, folder, encode_prompts(towers, pairs))
        for seed in range(arguments.seeds):
            learner = PromptLearner(towers.text, pairs, context_length=4, seed=seed)
            settings = Settings(
                loss=method.loss,
                order_weight=method.order_weight,
                learning_rate=arguments.learning_rate,
                steps=arguments.steps,
                logit_scale=towers.logit_scale,
                seed=seed,
            )
            train(learner, towers.text, data, settings)
            reached.append(test_agreement(learner, towers, test))
    return reached


def linear_readout(cache: FeatureCache, test: tuple[np.ndarray, ...]) -> float:
    """Return the SRCC of ridge regression from features to ranks of HaarPSI."""
    table = pa.concat_tables(cache.tables())
    ranks = rankdata(table.column("reference").to_numpy()) / len(table)
    model = RidgeCV(np.logspace(-3, 2, 11)).fit(features_of(table).astype(np.float64), ranks)
    return srcc(model.predict(test[0].astype(np.float64)), test[1])


_COLOURS = {
    "UPL": "#999999",
    "pairwise": "#7570b3",
    "listwise": "#1b9e77",
    "listwise + views": "#d95f02",
    "supervised": "#222222",
}


def figure(rows: dict[str, dict[str, list[float]]], ceiling: float) -> str:
    """Return an SVG: a line for each start, its fixed prompts as a bar, each method as a dot."""
    left, width, line, top = 150, 560, 34, 64
    height = top + line * len(rows) + 44
    low, high = -1.0, 1.0

    def across(value: float) -> float:
        return left + width * (value - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {height}" '
        'role="img" font-family="system-ui,sans-serif" font-size="13" fill="#222">'
        "<title>SRCC with HaarPSI by start and way of training</title>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    at = 10
    for name, colour in {"fixed prompts": "#222", **_COLOURS}.items():
        mark = (
            f'<path d="M{at} 12v16" stroke="{colour}" stroke-width="3"/>'
            if name == "fixed prompts"
            else f'<circle cx="{at}" cy="20" r="5" fill="{colour}"/>'
        )
        parts.append(f'{mark}<text x="{at + 10}" y="25">{name}</text>')
        at += 30 + 7 * len(name)
    for tick in np.linspace(low, high, 9):
        x = across(tick)
        parts.append(f'<path d="M{x:.1f} {top - 8}V{height - 40}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 22}" text-anchor="middle">{tick:g}</text>')
    x = across(ceiling)
    parts.append(f'<path d="M{x:.1f} {top - 8}V{height - 40}" stroke="#555" stroke-dasharray="4"/>')
    parts.append(f'<text x="{x:.1f}" y="{top - 14}" text-anchor="middle">linear readout</text>')
    for number, (start, found) in enumerate(rows.items()):
        y = top + line * number + line / 2
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{start}</text>')
        x = across(found["fixed"][0])
        parts.append(f'<path d="M{x:.1f} {y - 13}v26" stroke="#222" stroke-width="3"/>')
        for place, (name, colour) in enumerate(_COLOURS.items()):
            mean, spread = np.mean(found[name]), np.std(found[name], ddof=1)
            dot = y + 5 * (place - 2)
            ends = across(mean - spread), across(mean + spread)
            parts.append(f'<path d="M{ends[0]:.1f} {dot}H{ends[1]:.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{across(mean):.1f}" cy="{dot}" r="4" fill="{colour}"/>')
    parts.append(
        f'<text x="{left + width / 2}" y="{height - 5}" text-anchor="middle">SRCC with HaarPSI on '
        "held-out images (mean and spread over seeds)</text></svg>\n"
    )
    return "".join(parts)


def main() -> None:
    """Print a line for each start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("prompt-learning"))
    parser.add_argument("--crops", type=int, default=900)
    parser.add_argument(
        "--every-cut", type=int, default=1, help="use every Nth cut of a test photo"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--figure", type=Path, help="draw the table here, as SVG")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    for name in ("train", "test"):
        if not (arguments.folder / name).exists():
            made = (
                training_images(arguments.photos, arguments.crops)
                if name == "train"
                else test_images(arguments.every_cut)
            )
            write_images(arguments.folder / name, *made)
    cache = embed(arguments.folder / "train", views=4)
    table = pa.concat_tables(embed(arguments.folder / "test", views=0).tables())
    test = (features_of(table), table.column("reference").to_numpy())
    towers = load_towers("tiny")
    torch.set_num_threads(1)
    print(f"{len(test[0]):,} test images, {arguments.seeds} seeds: mean SRCC (spread over seeds)")
    print(f"{'start':20}{'fixed':>8}" + "".join(f"{name:>18}" for name in METHODS))
    rows: dict[str, dict[str, list[float]]] = {}
    for start, pairs in STARTS.items():
        plain = PromptLearner(towers.text, pairs, context_length=0)
        rows[start] = {"fixed": [test_agreement(plain, towers, test)]}
        print(f"{start:20}{rows[start]['fixed'][0]:8.3f}", end="", flush=True)
        for name, method in METHODS.items():
            found = students(method, pairs, cache, towers, test, arguments)
            rows[start][name] = found
            print(f"{np.mean(found):10.3f} ({np.std(found, ddof=1):5.3f})", end="", flush=True)
        print()
    ceiling = linear_readout(cache, test)
    print(f"linear readout of the features, with labels: {ceiling:.3f}")
    for name in METHODS:
        better = [np.mean(r[name]) - r["fixed"][0] > np.std(r[name], ddof=1) for r in rows.values()]
        worse = [r["fixed"][0] - np.mean(r[name]) > np.std(r[name], ddof=1) for r in rows.values()]
        print(
            f"{name}: better than fixed by more than the spread in {sum(better)} of {len(rows)} "
            f"starts, worse in {sum(worse)}"
        )
    if arguments.figure:
        arguments.figure.write_text(figure(rows, ceiling))


if __name__ == "__main__":
    main()
