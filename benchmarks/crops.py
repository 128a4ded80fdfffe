"""Local blur in photographs of 12 megapixels: one view against `--crops`.

    python -m benchmarks.crops [--places 6] [--json FILE]

The demo's six photographs, enlarged to 4000 x 3000 pixels, JPEG at quality 92. A square of a third of the
shorter side is blurred (Gaussian), at several places. Stated is the share of these images that score lower
than the same photograph without blur: by its one view, and by mean and lowest score of several. Scores are
those of `tiny`. The time is that of decoding and of the model for one image, in turn, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from benchmarks.photos import crop_to, encode
from benchmarks.results import Table, save, show, spread
from iqa_core import Scorer
from iqa_core.images.decode import decode_image
from tools.demo import photos

SIZE = (4000, 3000)
DEVIATIONS = (6, 10, 16, 24)
CROPS = (1, 5, 10, 17)


@dataclass(frozen=True)
class Scored:
    """Scores of an image's views: their mean and the lowest; and what they took."""

    mean: float
    low: float
    seconds: float


def blurred(photo: Image.Image, deviation: int, generator: np.random.Generator) -> Image.Image:
    """Return a photograph of which a square is blurred."""
    side = photo.height // 3
    left, top = (int(generator.integers(0, edge - side + 1)) for edge in photo.size)
    # More than the square is filtered, so that its edge is not blurred by what is not there.
    margin = 3 * deviation
    box = (left - margin, top - margin, left + side + margin, top + side + margin)
    part = photo.crop(box).filter(ImageFilter.GaussianBlur(deviation))
    found = photo.copy()
    found.paste(part.crop((margin, margin, margin + side, margin + side)), (left, top))
    return found


def score(scorer: Scorer, data: bytes, crops: int) -> Scored:
    """Score the views of an image."""
    began = time.perf_counter()
    pixels = decode_image(data, scorer.preprocess, crops=crops).pixels
    views = scorer.score([pixels] if crops == 1 else list(pixels)).score
    return Scored(float(views.mean()), float(views.min()), time.perf_counter() - began)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scorer = Scorer("tiny")
    below: dict[tuple[int, str], list[bool]] = defaultdict(list)
    seconds: dict[int, list[float]] = defaultdict(list)
    generator = np.random.default_rng(0)
    for pixels in photos().values():
        photo = crop_to(Image.fromarray(pixels), SIZE)
        data = encode(photo, "JPEG")
        clean = {crops: score(scorer, data, crops) for crops in CROPS}
        for deviation in DEVIATIONS:
            for _ in range(arguments.places):
                changed = encode(blurred(photo, deviation, generator), "JPEG")
                for crops in CROPS:
                    found = score(scorer, changed, crops)
                    seconds[crops].append(found.seconds)
                    below[deviation, f"{crops} mean"].append(found.mean < clean[crops].mean)
                    below[deviation, f"{crops} lowest"].append(found.low < clean[crops].low)
    names = [f"{crops} {kind}" for crops in CROPS for kind in ("mean", "lowest")][1:]
    rows = [
        [str(deviation), *(f"{np.mean(below[deviation, name]):.2f}" for name in names)]
        for deviation in DEVIATIONS
    ]
    every = [np.mean([x for d in DEVIATIONS for x in below[d, name]]) for name in names]
    rows.append(["all", *(f"{share:.2f}" for share in every)])
    count = len(below[DEVIATIONS[0], names[0]])
    heads = [
        "1 view" if name == "1 lowest" else f"{name.replace(' ', ' crops, ')}" for name in names
    ]
    title = f"Share of locally blurred images below the clean one, {count} images a row, tiny"
    quality = Table(title, ["blur, pixels", *heads], rows)
    ratios = {
        crops: [a / b for a, b in zip(seconds[crops], seconds[1], strict=True)] for crops in CROPS
    }
    cost = Table(
        "Seconds of decoding and model for an image of 12 megapixels, against one view",
        ["crops", "ratio"],
        [[str(crops), spread(ratios[crops])] for crops in CROPS],
    )
    show([quality, cost])
    raw = {f"{deviation} {name}": values for (deviation, name), values in below.items()}
    save("crops", [quality, cost], raw={"below": raw, "ratios": ratios}, path=arguments.json)


if __name__ == "__main__":
    main()
