"""Does training help, whatever prompts one starts with? Teacher and student side by side.

    python -m benchmarks.starting_prompts --photos photos [--folder starting-prompts] [--seeds 5]

Training: unlabelled crops of photographs of the Debian packages that `tools/train_tiny.py` names
(unpacked below --photos), each with a random distortion or none, and four degraded copies of each
(`iqa embed --views 4`). Test: the held-out photographs and all distortions of benchmarks/tiny_quality.py,
never looked at in training; SRCC of the score with HaarPSI against the clean cut.

For each start (a set of base prompts) and each way of training: the mean over seeds and the spread
(standard deviation over seeds). `supervised` learns HaarPSI itself on the training crops, from the start
named: about what these features can give at all.
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

from benchmarks.tiny_quality import cuts, held_out_photos
from iqa_core.features import FeatureCache, features_of
from iqa_core.learner import PromptLearner, teacher_scores
from iqa_core.metrics import srcc
from iqa_core.prompts import NAMED_PAIRS, PromptPair
from iqa_core.scoring import encode_prompts
from iqa_core.towers import Towers, load_towers
from iqa_core.training import Settings, held_out_margins, train
from iqa_core.training_data import plan_training_data, write_training_data
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
    target: str = "ensemble"


METHODS = {
    "UPL": Method("upl"),
    "pairwise": Method("ranknet"),
    "listwise": Method("listmle"),
    "listwise + views": Method("listmle", order_weight=1.0),
    "supervised": Method("listmle", target="column:reference"),
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
    return srcc(teacher_scores(margins)[:, 0].numpy(), test[1])


def main() -> None:
    """Print a line for each start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("starting-prompts"))
    parser.add_argument("--crops", type=int, default=900)
    parser.add_argument(
        "--every-cut", type=int, default=1, help="use every Nth cut of a test photo"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
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
    for start, pairs in STARTS.items():
        prompts = encode_prompts(towers, pairs)
        plain = PromptLearner(towers.text, pairs, context_length=0)
        line = f"{start:20}{test_agreement(plain, towers, test):8.3f}"
        for method in METHODS.values():
            with tempfile.TemporaryDirectory() as folder:
                plan = plan_training_data(cache, len(pairs), target=method.target)
                if not method.order_weight:
                    plan = replace(plan, data=replace(plan.data, views=0))
                data = write_training_data(cache, plan, folder, prompts)
                reached = []
                for seed in range(arguments.seeds):
                    learner = PromptLearner(towers.text, pairs, context_length=4, seed=seed)
                    settings = Settings(
                        loss=method.loss,
                        order_weight=method.order_weight,
                        learning_rate=arguments.learning_rate,
                        steps=arguments.steps,
                        interval=10,
                        logit_scale=towers.logit_scale,
                        seed=seed,
                    )
                    train(learner, towers.text, data, settings)
                    reached.append(test_agreement(learner, towers, test))
            line += f"{np.mean(reached):10.3f} ({np.std(reached, ddof=1):5.3f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
