"""Decoding and resizing to 224 x 224: ``fast`` and ``exact`` against open_clip's transform and others.

    python -m benchmarks.decode [--quick] [--rounds 7] [--json FILE]

Measured is one thread's CPU time from a file's bytes to uint8 pixels, over eight photographs (of
scikit-image and scikit-learn, cut to the size). In each round all ways take turns, a ratio is of one
round, and what is shown is the median of the rounds with the smallest and the largest. open_clip's
transform is Pillow's ``open`` and ``convert`` with ``image_transform_v2``. A difference is to ``exact``: of
pixels (0 to 255), and of the scores of ``tiny``.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from benchmarks.decode_others import SIDE, WAYS
from benchmarks.photos import ENCODINGS, files
from benchmarks.results import Table, save, show, spread
from iqa_core import Scorer
from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess

TOWER = Preprocess((SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SIZES = [(640, 480), (1200, 900), (2000, 1500), (4000, 3000)]
NOISE = 8.0

#: `fast` of version 0.2, with this module's files on the machine of results/decode.json: ratio to
#: open_clip's transform, mean difference of pixels, mean and largest difference of scores.
BEFORE = {
    (640, 0.0): (1.42, 0.0002, 0.00004, 0.00011),
    (640, 8.0): (1.34, 0.0001, 0.00002, 0.00009),
    (1200, 0.0): (2.64, 0.3466, 0.00417, 0.01751),
    (1200, 8.0): (2.14, 0.5093, 0.00322, 0.00409),
    (2000, 0.0): (2.48, 0.1766, 0.00163, 0.00299),
    (2000, 8.0): (2.06, 0.2507, 0.00207, 0.00679),
    (4000, 0.0): (7.41, 0.1886, 0.00192, 0.00376),
    (4000, 8.0): (2.69, 0.2352, 0.00097, 0.00231),
}

Decoder = Callable[[bytes], object]


def open_clip_decoder() -> Decoder:
    """Return what users of open_clip do with a file."""
    transform = image_transform_v2(PreprocessCfg(size=(SIDE, SIDE)), is_train=False)
    return lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB"))


def decoder(mode: str) -> Decoder:
    return lambda data: decode_image(data, TOWER, mode=mode).pixels


def milliseconds(
    decoders: Mapping[str, Decoder], data: Sequence[bytes], rounds: int
) -> dict[str, list[float]]:
    """Return the CPU time of an image, for each decoder and round."""
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            start = time.process_time()
            for file in data:
                decode(file)
            times[name].append((time.process_time() - start) / len(data) * 1000)
    return times


def ratios(times: Mapping[str, Sequence[float]], name: str, base: str) -> list[float]:
    """Return how many times as fast as ``base`` each round was."""
    return [a / b for a, b in zip(times[base], times[name], strict=True)]


def pixel_difference(decode: Decoder, data: Sequence[bytes]) -> np.ndarray:
    """Return |decoded - exact| of all pixels."""
    pixels, exact = (
        np.stack([np.asarray(way(file)) for file in data]).astype(np.int16)
        for way in (decode, decoder("exact"))
    )
    return np.abs(pixels - exact)


def against_open_clip(sizes: Sequence[tuple[int, int]], rounds: int, raw: dict) -> Table:
    """Compare with open_clip's transform, and with exact pixels and scores."""
    decoders = {
        "open_clip": open_clip_decoder(),
        "exact": decoder("exact"),
        "fast": decoder("fast"),
    }
    scorers = [Scorer("tiny", device="cpu", decode=mode) for mode in ("exact", "fast")]
    rows = []
    for size in sizes:
        for noise in (0.0, NOISE):
            data = files(size, noise=noise)
            times = milliseconds(decoders, data, rounds)
            pixels = pixel_difference(decoders["fast"], data)
            exact, fast = (scorer.score(data).score for scorer in scorers)
            scores = np.abs(fast - exact)
            before = BEFORE.get((size[0], noise))
            rows.append(
                [
                    f"{size[0]} x {size[1]}, {'noisy' if noise else 'clean'}",
                    f"{sum(map(len, data)) / len(data) / 1000:.0f}",
                    spread(times["open_clip"]),
                    spread(times["fast"]),
                    spread(ratios(times, "exact", "open_clip")),
                    spread(ratios(times, "fast", "open_clip")),
                    f"{before[0]:.2f}" if before else "",
                    f"{pixels.mean():.4f}, {pixels.max()}",
                    f"{before[1]:.4f}" if before else "",
                    f"{scores.mean():.5f}, {scores.max():.5f}",
                    f"{before[2]:.5f}, {before[3]:.5f}" if before else "",
                ]
            )
            raw[f"{size[0]} x {size[1]}, noise {noise:g}"] = {
                "milliseconds": times,
                "pixels": float(pixels.mean()),
                "scores": scores.tolist(),
            }
    columns = ["JPEG", "KB", "open_clip, ms", "fast, ms", "exact is x times as fast"]
    columns += ["fast is", "in 0.2", "pixels: mean, max", "in 0.2"]
    return Table(
        f"CPU time of an image, as open_clip's own transform and as `fast`, to {SIDE} x {SIDE}; "
        "differences of `fast` to `exact`",
        [*columns, "scores: mean, max", "in 0.2"],
        rows,
    )


def encodings(size: tuple[int, int], rounds: int, raw: dict) -> Table:
    """Compare the modes on other kinds of file."""
    decoders = {mode: decoder(mode) for mode in ("exact", "fast")}
    rows = []
    for label in ENCODINGS:
        data = files(size, label)
        times = milliseconds(decoders, data, rounds)
        pixels = pixel_difference(decoders["fast"], data)
        rows.append(
            [
                label,
                *(spread(times[mode]) for mode in decoders),
                spread(ratios(times, "fast", "exact")),
                f"{pixels.mean():.4f}",
                str(pixels.max()),
            ]
        )
        raw[label] = {"milliseconds": times, "pixels": float(pixels.mean())}
    columns = ["file", "exact, ms", "fast, ms", "ratio", "pixels: mean", "max"]
    return Table(f"Kinds of file, {size[0]} x {size[1]}, clean", columns, rows)


def others(sizes: Sequence[tuple[int, int]], rounds: int, raw: dict) -> tuple[Table, list[str]]:
    """Compare with other libraries; return a note for each that is not installed."""
    ways: dict[str, Decoder] = {"this project, fast": decoder("fast")}
    notes = []
    for label, make in WAYS.items():
        try:
            ways[label] = make()
        except (ImportError, OSError) as error:
            notes.append(f"Not measured: {label} ({type(error).__name__}: {error}).")
    rows = [[label] for label in ways]
    columns = ["way"]
    for size in sizes:
        data = files(size)
        times = milliseconds({"open_clip": open_clip_decoder(), **ways}, data, rounds)
        for row, (label, way) in zip(rows, ways.items(), strict=True):
            off = pixel_difference(way, data).mean()
            row += [f"{statistics.median(times[label]):.2f}"]
            row += [spread(ratios(times, label, "open_clip")), f"{off:.3f}"]
        columns += [f"{size[0]} x {size[1]}: ms", "ratio to open_clip", "pixels: mean"]
        raw[f"{size[0]} x {size[1]}"] = times
    title = (
        f"JPEG to {SIDE} x {SIDE} by other libraries, clean; difference to open_clip's transform"
    )
    return Table(title, columns, rows), notes


def main() -> None:
    """Print the tables, and store them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 sizes, 2 rounds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also store the results in this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["VIPS_CONCURRENCY"] = "1"
    sizes, rounds = (SIZES[:2], 2) if arguments.quick else (SIZES, arguments.rounds)
    raw: dict[str, dict] = {"open_clip": {}, "encodings": {}, "others": {}}
    tables = []
    notes = ["CPU time of one thread; all ways take turns in each round."]
    tables.append(against_open_clip(sizes, rounds, raw["open_clip"]))
    show(tables[-1:])
    tables.append(encodings((1200, 900), rounds, raw["encodings"]))
    show(tables[-1:])
    compared = sizes if arguments.quick else [SIZES[0], SIZES[1], SIZES[3]]
    table, missing = others(compared, rounds, raw["others"])
    show([table])
    print(*missing, sep="\n")
    if arguments.json:
        save("decode", [*tables, table], notes=[*notes, *missing], raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
