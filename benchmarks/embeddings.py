"""Features of other programs: the cosines of a canary, and the cost of each form.

    python -m benchmarks.embeddings [--rows 200000] [--rounds 5] [--json FILE]

The first table: photographs, cut into tiles, are encoded by `tiny` as `iqa score` does it, and again as
other programs might: another resize filter, no antialiasing, the whole image instead of the middle, a
re-encoded JPEG, features in half precision; and as they must not: the rows of other images, and another
model of the same width (`tiny` with its projection turned). The second: reading and scoring random
features of width 512 in each form, in turns, with our own cache's layout as the unit. Rows are counted.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.photos import photographs
from benchmarks.rescore import prompts_of, write_cache
from benchmarks.results import Table, save, show, spread
from iqa_core.clip.load import load_towers
from iqa_core.images.decode import decode_image
from iqa_core.tables.feature_cache import FeatureCache, features_of
from iqa_core.tables.feature_source import FeatureSource
from iqa_core.tables.foreign.features import ForeignFeatures
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import output_schema
from jobs.scoring.canary import LEAST_COSINE
from jobs.scoring.rescore import scored_tables

_WIDTH = 512
_TILE = (480, 360)


def tiles() -> list[Image.Image]:
    """Return the photographs in tiles that are larger than the model's input, and not square."""
    width, height = _TILE
    return [
        photo.crop((left, top, left + width, top + height))
        for photo in photographs()
        for top in range(0, photo.height - height + 1, height)
        for left in range(0, photo.width - width + 1, width)
    ]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def resized(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """Return the middle of an image, resized so that its shorter side fits."""
    scale = max(size[0] / image.width, size[1] / image.height)
    whole = image.resize((round(image.width * scale), round(image.height * scale)), how)
    left, top = (whole.width - size[0]) // 2, (whole.height - size[1]) // 2
    return np.asarray(whole.crop((left, top, left + size[0], top + size[1])))


def cosines() -> tuple[Table, dict[str, list[float]]]:
    """Return the cosines of other programs' features to ours."""
    towers = load_towers("tiny")
    images = tiles()
    height, width = towers.preprocess.size
    size = (width, height)

    def encode(pixels: list[np.ndarray]) -> np.ndarray:
        return towers.image.encode(np.stack(pixels)).numpy()

    def ours(mode: str, **options: Any) -> np.ndarray:
        files = [encoded(image, **options) for image in images]
        return encode([decode_image(d, towers.preprocess, mode=mode).pixels for d in files])

    def theirs(how: Image.Resampling) -> np.ndarray:
        return encode([resized(image, size, how) for image in images])

    own = ours("fast")
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(own.shape[1],) * 2))[0]
    variants: dict[str, Callable[[], np.ndarray]] = {
        "open_clip's transform, exactly": lambda: ours("exact"),
        "the same in half precision": lambda: own.astype(np.float16).astype(np.float32),
        "resized by a bilinear filter": lambda: theirs(Image.Resampling.BILINEAR),
        "resized by Lanczos' filter": lambda: theirs(Image.Resampling.LANCZOS),
        "resized without antialiasing": lambda: theirs(Image.Resampling.NEAREST),
        "the whole image, squeezed": lambda: encode(
            [np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images]
        ),
        "re-encoded as JPEG, quality 95": lambda: ours("fast", kind="JPEG", quality=95),
        "re-encoded as JPEG, quality 75": lambda: ours("fast", kind="JPEG", quality=75),
        "the rows of other images": lambda: np.roll(own, len(own) // 2, axis=0),
        "another model": lambda: own @ turned.astype(np.float32),
    }
    found = {}
    for name, make in variants.items():
        others = make()
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(others, axis=1)
        found[name] = (np.einsum("nd,nd->n", own, others) / lengths).tolist()
    rows = [
        [
            name,
            f"{np.median(each):.4f}",
            f"{min(each):.4f}",
            "yes" if np.median(each) >= LEAST_COSINE else "no",
        ]
        for name, each in found.items()
    ]
    title = f"Cosine of features to those of `iqa score`, tiny, {len(images)} tiles of photographs"
    head = ("features", "median", "lowest", f"accepted (median of {LEAST_COSINE})")
    return Table(title, head, rows), found


def write_forms(folder: Path, rows: int) -> dict[str, FeatureSource]:
    """Write the features of a cache in every form."""
    write_cache(folder / "cache", rows, _WIDTH, as_before=False)
    cache = FeatureCache(str(folder / "cache/features"))
    table = pa.concat_tables(cache.tables(["uri", "embedding"])).sort_by("manifest_row")
    features = features_of(table).astype(np.float16)
    metadata = table.select(["uri"])
    pq.write_table(metadata, folder / "meta.parquet", row_group_size=100_000)
    np.save(folder / "a.npy", features)
    np.savez(folder / "plain.npz", features)
    np.savez_compressed(folder / "packed.npz", features)
    wide = features.astype(np.float32)
    offsets = pa.array(np.arange(0, wide.size + 1, _WIDTH, dtype=np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(wide.ravel()))
    pq.write_table(
        metadata.append_column("emb", lists), folder / "list.parquet", row_group_size=20_000
    )
    beside = {"metadata": str(folder / "meta.parquet")}

    def foreign(name: str, **options: str) -> ForeignFeatures:
        return ForeignFeatures.open(str(folder / name), "benchmark", **options)

    return {
        "our cache, float16": cache,
        ".npy, float16": foreign("a.npy", **beside),
        ".npz, float16, stored": foreign("plain.npz", **beside),
        ".npz, float16, compressed": foreign("packed.npz", **beside),
        "Parquet, lists of float32": foreign("list.parquet"),
    }


def score(source: FeatureSource, rows: int) -> float:
    """Read and score all rows; return the seconds."""
    prompts = prompts_of(_WIDTH)
    schema = output_schema(source.manifest(), (), pairs=prompts.names)
    began = time.perf_counter()
    count = sum(len(table) for table in scored_tables(source, prompts, schema, RowSet(), 2))
    seconds = time.perf_counter() - began
    if count != rows:
        raise SystemExit(f"{count:,} rows of {rows:,}")
    return seconds


def rates(rows: int, rounds: int) -> tuple[Table, dict[str, list[float]]]:
    """Return seconds in each form, in turns."""
    with tempfile.TemporaryDirectory() as name:
        sources = write_forms(Path(name), rows)
        seconds: dict[str, list[float]] = {form: [] for form in sources}
        for _ in range(rounds):
            for form, source in sources.items():
                seconds[form].append(score(source, rows))
    first = seconds["our cache, float16"]
    cells = [
        [
            form,
            spread([rows / s / 1e3 for s in each], "{:,.0f}"),
            spread([s / f for s, f in zip(each, first, strict=True)]),
        ]
        for form, each in seconds.items()
    ]
    title = f"Reading and scoring {rows:,} features of width {_WIDTH}, five pairs, two threads"
    return Table(title, ("form", "thousand rows/s", "time, our cache = 1"), cells), seconds


def main() -> None:
    """Print both tables, and store them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file of the results")
    arguments = parser.parse_args()
    first, found = cosines()
    second, seconds = rates(arguments.rows, arguments.rounds)
    show([first, second])
    raw = {"cosines": found, "seconds": seconds}
    save("embeddings", [first, second], raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
