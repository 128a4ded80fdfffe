"""Near duplicates: precision and recall by threshold, what keep-best keeps, and the time of the search.

    python -m benchmarks.duplicates [--seeds 8] [--rows 20000 60000] [--json FILE]

The collection: tiles of 160 x 160 pixels that do not overlap, of the six photographs of the demo (JPEG at
quality 97). Half of the rows are originals, 30 % are exact copies and 20 % are near ones: encoded again at
quality 30 to 75, resized by 0.5 to 0.8, or with 3 to 10 % of either side cut off. A near copy is found if
it is in the cluster of its original; a pair of rows with different bytes is right if both come from one
tile. Each seed draws other copies. Compared are descriptors and, beside them, the features of `tiny`, whose
scores decide which row of a cluster is the best.

False pairs: random squares of 30 to 100 % of the shorter side, from eight photographs; counted are pairs
from two different photographs whose descriptors are near.

The search: random features with a third of copies; the exact search and the index find the pairs, in turn.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photos import photographs
from benchmarks.results import Table, save, show, spread
from iqa_core import Scorer
from iqa_core.columns import DESCRIPTOR_WIDTH
from iqa_core.duplicates.clusters import DEFAULT_THRESHOLD, find_clusters
from iqa_core.duplicates.content_hash import content_hash
from iqa_core.duplicates.descriptor import describe_pixels
from iqa_core.duplicates.exact_search import exact_pairs, unit_rows
from iqa_core.duplicates.indexed_search import indexed_pairs
from iqa_core.duplicates.rows import ImageRows
from iqa_core.images.decode import decode_image
from tools.demo import photos

SIDE = 160
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
TINY_THRESHOLDS = (0.9, 0.95, 0.98)
NEAR = ("encoded again", "resized", "cropped")
WIDTH = 168


@dataclass(frozen=True)
class Collection:
    """The rows of a collection.

    Attributes:
        files: Encoded images.
        tile: The tile that each shows.
        kind: ``original``, ``exact`` or one of ``NEAR``.
    """

    files: list[bytes]
    tile: np.ndarray
    kind: np.ndarray


def tiles() -> list[Image.Image]:
    """Return the tiles of all photographs."""
    found = []
    for photo in photos().values():
        for top in range(0, photo.shape[0] - SIDE + 1, SIDE):
            for left in range(0, photo.shape[1] - SIDE + 1, SIDE):
                found.append(Image.fromarray(photo[top : top + SIDE, left : left + SIDE]))
    return found


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
    return buffer.getvalue()


def near_copy(image: Image.Image, kind: str, generator: np.random.Generator) -> bytes:
    """Return a near copy of an image."""
    if kind == "encoded again":
        return jpeg(image, int(generator.integers(30, 76)))
    if kind == "resized":
        side = round(SIDE * generator.uniform(0.5, 0.8))
        return jpeg(image.resize((side, side), Image.Resampling.LANCZOS), 90)
    width, height = (SIDE - round(SIDE * generator.uniform(0.03, 0.1)) for _ in range(2))
    left, top = (int(generator.integers(0, SIDE - side + 1)) for side in (width, height))
    return jpeg(image.crop((left, top, left + width, top + height)), 90)


def collection(seed: int) -> Collection:
    """Return originals and their copies, in a random order."""
    generator = np.random.default_rng(seed)
    originals = tiles()
    count = len(originals)
    files = [jpeg(image, 97) for image in originals]
    kinds, tile = ["original"] * count, list(range(count))
    for place in generator.integers(0, count, round(0.6 * count)):
        files.append(files[place])
        kinds.append("exact")
        tile.append(int(place))
    for number, place in enumerate(generator.integers(0, count, round(0.4 * count))):
        kind = NEAR[number % len(NEAR)]
        files.append(near_copy(originals[place], kind, generator))
        kinds.append(kind)
        tile.append(int(place))
    order = generator.permutation(len(files))
    return Collection(
        [files[place] for place in order], np.array(tile)[order], np.array(kinds)[order]
    )


def image_rows(files: list[bytes], features: np.ndarray) -> ImageRows:
    digests = [bytes.fromhex(content_hash(data)) for data in files]
    hashes = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return ImageRows(hashes, features, None, {}, np.arange(len(files)))


def labels_of(rows: ImageRows, threshold: float) -> np.ndarray:
    """Return each row's cluster; those of rows without duplicates are negative and differ."""
    clusters = find_clusters(rows, threshold)
    labels = -1 - np.arange(len(rows))
    labels[clusters.places] = clusters.cluster
    return labels


def quality(data: Collection, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the figures of one collection at one threshold."""
    original = {
        tile: place for place, tile in enumerate(data.tile) if data.kind[place] == "original"
    }
    with_original = labels == labels[[original[tile] for tile in data.tile]]
    found = {f"recall, {kind}": float(with_original[data.kind == kind].mean()) for kind in NEAR}
    near = np.isin(data.kind, NEAR)
    found["recall"] = float(with_original[near].mean())
    found["exact"] = float(with_original[data.kind == "exact"].mean())
    different = np.flatnonzero(data.kind != "exact")
    together = np.triu(labels[different][:, None] == labels[different], 1)
    right = data.tile[different][:, None] == data.tile[different]
    found["precision"] = float(right[together].mean()) if together.any() else 1.0
    kept, lossless = [], []
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        if near[members].any():
            best = members[np.argmax(scores[members])]
            kept.append(not near[best])
            if not (data.kind[members] == "cropped").any():
                lossless.append(not near[best])
    found["keep-best"] = float(np.mean(kept)) if kept else 1.0
    found["keep-best without crops"] = float(np.mean(lossless)) if lossless else 1.0
    return found


def measure_quality(seeds: int) -> dict[str, list[dict[str, float]]]:
    """Return the figures of each collection by what is compared and threshold."""
    scorer = Scorer("tiny")
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in range(seeds):
        data = collection(seed)
        scored = scorer.score(data.files)
        images = [decode_image(file, scorer.preprocess).pixels for file in data.files]
        described = [describe_pixels(pixels) or bytes(DESCRIPTOR_WIDTH) for pixels in images]
        descriptors = np.frombuffer(b"".join(described), np.int8).reshape(len(images), -1)
        for name, features, thresholds in (
            ("descriptors", descriptors, THRESHOLDS),
            ("features of tiny", scored.features.astype(np.float16), TINY_THRESHOLDS),
        ):
            rows = image_rows(data.files, features)
            for threshold in thresholds:
                labels = labels_of(rows, threshold)
                found[f"{name}, {threshold:g}"].append(quality(data, labels, scored.score))
    return found


def measure_false_pairs(squares: int = 400) -> dict[str, float]:
    """Return the share of pairs of two photographs at or above each threshold, and their number."""
    generator = np.random.default_rng(0)
    described, sources = [], []
    for number, photo in enumerate(photographs()):
        for _ in range(squares):
            side = round(min(photo.size) * generator.uniform(0.3, 1))
            left, top = (int(generator.integers(0, edge - side + 1)) for edge in photo.size)
            square = photo.resize((224, 224), box=(left, top, left + side, top + side))
            found = describe_pixels(np.asarray(square))
            if found:
                described.append(np.frombuffer(found, np.int8))
                sources.append(number)
    rows = unit_rows(np.array(described))
    source = np.array(sources)
    others = np.triu(source[:, None] != source, 1)
    cosines = (rows @ rows.T)[others]
    shares = {f"{threshold:g}": float((cosines >= threshold).mean()) for threshold in THRESHOLDS}
    return {"pairs": float(len(cosines)), **shares}


def search_features(rows: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((rows, WIDTH), np.float32)
    copies = generator.permutation(rows)[: rows // 3]
    noise = generator.standard_normal((len(copies), WIDTH), np.float32)
    noise *= generator.uniform(0.02, 0.35, (len(copies), 1)).astype(np.float32)
    features[copies] = features[generator.integers(0, rows, len(copies))] + noise
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)


def measure_search(rows: int, rounds: int = 3) -> dict[str, list[float]]:
    """Return seconds of both searches, and the share of pairs that the index finds."""
    features = search_features(rows)
    found: dict[str, list[float]] = {"exact": [], "index": [], "share": []}
    for _ in range(rounds):
        pairs = []
        for name, search in (("exact", exact_pairs), ("index", indexed_pairs)):
            began = time.perf_counter()
            each = list(search(features, DEFAULT_THRESHOLD))
            found[name].append(time.perf_counter() - began)
            pairs.append(np.concatenate([first * rows + second for first, second in each]))
        found["share"].append(len(np.intersect1d(*pairs)) / len(pairs[0]))
    return found


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    by_threshold = measure_quality(arguments.seeds)
    columns = [
        "exact",
        "precision",
        "recall",
        *(f"recall, {kind}" for kind in NEAR),
        "keep-best",
        "keep-best without crops",
    ]
    rows = [
        [compared, *(spread([each[name] for each in seeds], "{:.3f}") for name in columns)]
        for compared, seeds in by_threshold.items()
    ]
    count = len(tiles())
    title = (
        f"Clusters by threshold, {count} tiles, {arguments.seeds} collections of {2 * count} rows"
    )
    quality_table = Table(title, ["compared, threshold", *columns], rows)
    show([quality_table])
    false = measure_false_pairs()
    pairs = int(false.pop("pairs"))
    false_table = Table(
        f"Share of {pairs:,} pairs of different photographs that count as near",
        list(false),
        [[f"{share:.2g}" for share in false.values()]],
    )
    show([false_table])
    searches = {rows: measure_search(rows) for rows in arguments.rows}
    rows = [
        [
            f"{number:,}",
            spread(found["exact"], "{:.1f}"),
            spread(found["index"], "{:.1f}"),
            spread(found["share"], "{:.4f}"),
        ]
        for number, found in searches.items()
    ]
    head = ["rows", "exact, s", "index, s", "share of pairs that the index finds"]
    search_table = Table(f"Search for near duplicates, width {WIDTH}", head, rows)
    show([search_table])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    save(
        "duplicates",
        [quality_table, false_table, search_table],
        notes=[f"Resident memory at most: {memory:.1f} GB."],
        raw={"quality": by_threshold, "false": false, "search": searches},
        path=arguments.json,
    )


if __name__ == "__main__":
    main()
