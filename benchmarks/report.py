"""Seconds, memory and size of `iqa report` on a large scored output.

    python -m benchmarks.report [--rows 200000] [--images 400] [--copies 25]

Writes a manifest, real image files and two scored outputs (through the project's own writer, with
made-up scores) to a temporary folder, then makes each page in a fresh process. With --copies, a last
page is of N copies of the first output's part files in one folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
from PIL import Image

from iqa_core.prompts.pairs import load_pairs
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema

KINDS = ("blur", "noise", "jpeg", "dark", "none")
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SIZE = (1600, 1200)
PART = 20_000  # rows of a part file


def write_images(folder: Path, count: int) -> list[str]:
    """Write photographs, the more of the noise the higher their number: what thumbnails cost."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    photos = [np.asarray(Image.fromarray(getattr(skimage.data, n)()).resize(SIZE)) for n in PHOTOS]
    for i in range(count):
        noise = rng.normal(0, 60 * i / count, photos[0].shape)
        pixels = np.clip(photos[i % len(photos)] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=85)
    return [f"{folder.name}/{i}.jpg" for i in range(count)]


def write_manifest(path: Path, uris: list[str], rows: int) -> None:
    rng = np.random.default_rng(1)
    table = {
        "uri": [uris[i % len(uris)] for i in range(rows)],
        "image_id": [f"image-{i:07d}" for i in range(rows)],
        "source": [f"https://photos.example/{i:07d}" for i in range(rows)],
        "distortion": [KINDS[i % len(KINDS)] for i in range(rows)],
        "level": pa.array(rng.integers(0, 6, rows), pa.int8()),
        "mos": rng.normal(50, 15, rows),
    }
    pq.write_table(pa.table(table), path, row_group_size=10_000)


def write_output(folder: Path, manifest_path: Path, seed: int) -> None:
    """Write a scored output as a run does: each row once, one in fifty failed."""
    keep = ("source", "distortion", "level", "mos")
    manifest = open_manifest(str(manifest_path), keep)
    pairs = [pair.name for pair in load_pairs("quality")]
    schema = output_schema(manifest, keep, pairs=pairs)
    source = pq.read_table(manifest_path)
    rng = np.random.default_rng(seed)
    quality = np.random.default_rng(2).normal(size=len(source))
    output = Output(str(folder), manifest, {"benchmark": seed})
    with output.start({"model": "made up", "pairs": "quality"}):
        for start in range(0, len(source), PART):
            rows = source.slice(start, PART)
            count = len(rows)
            failed = rng.random(count) < 0.02
            margins = quality[start : start + count, None] + rng.normal(0, 0.7, (count, len(pairs)))
            scores = 1 / (1 + np.exp(-margins))
            struct = schema.field("scores").type
            columns = {
                "manifest_file": [manifest.files[0].name] * count,
                "manifest_row": np.arange(start, start + count),
                "status": np.where(failed, rng.choice(["timeout", "not_found"], count), "ok"),
                "error": pa.array(["made up"] * count, mask=~failed),
                "score": pa.array(scores.mean(1), pa.float32(), mask=failed),
                "width": pa.array([SIZE[0]] * count, mask=failed),
                "height": pa.array([SIZE[1]] * count, mask=failed),
            }
            for name, values in (("scores", scores), ("margins", margins)):
                columns[name] = pa.StructArray.from_arrays(
                    [pa.array(one, pa.float32()) for one in values.T],
                    fields=list(struct),
                    mask=pa.array(failed),
                )
            columns |= {name: rows[name].combine_chunks() for name in ("uri", "image_id", *keep)}
            arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
            output.write(pa.table(arrays, schema=schema))
        output.finish({"images_per_second": 0.0, "stage_seconds": {"fetch": 1.0, "model": 3.0}})
    assert output.audit().passed


def copy_parts(folder: Path, copies: int) -> None:
    """Link the part files of the first output N times into a larger output."""
    large = folder / "copies"
    shutil.copytree(folder / "first" / "_run", large / "_run")
    for part in (folder / "first").glob("part-*.parquet"):
        for number in range(copies):
            os.link(part, large / f"part-{number}-{part.name[5:]}")


def measure(folder: Path, *words: str, scores: str = "first") -> None:
    """Make a page in a fresh process; print what it cost."""
    page = folder / "report.html"
    command = [sys.executable, "-m", "jobs", "report", "--scores", str(folder / scores)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--output", str(page), *words])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    print(
        f"{' '.join(Path(word).name for word in words) or scores:20} "
        f"{time.perf_counter() - began:5.1f} s, {usage.ru_maxrss / 1e6:.2f} GB at most, "
        f"{page.stat().st_size / 1e6:.2f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--copies", type=int, default=0, metavar="N")
    parser.add_argument("--keep", metavar="FOLDER", help="write here, and leave it there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        uris = write_images(folder / "images", arguments.images)
        write_manifest(folder / "manifest.parquet", uris, arguments.rows)
        for name, seed in (("first", 3), ("second", 4)):
            write_output(folder / name, folder / "manifest.parquet", seed)
        print(f"{arguments.rows:,} rows, {os.cpu_count()} CPUs")
        measure(folder)
        measure(folder, "--compare", str(folder / "second"))
        if arguments.copies:
            copy_parts(folder, arguments.copies)
            measure(folder, scores="copies")


if __name__ == "__main__":
    main()
