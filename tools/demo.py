"""`make demo`: real photographs, distorted step by step, scored on Ray to Parquet and a report.

Run it as `python tools/demo.py`; it writes to `demo/` and nowhere else. The photographs come with
scikit-image and scikit-learn; `tiny` has never seen them.
"""

from __future__ import annotations

import csv
import shlex
import shutil
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import skimage.data
import sklearn.datasets
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from iqa_core.evaluation.correlations import srcc
from jobs.cli import main as iqa
from tools.distortions import LEVELS, apply

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path("demo")
KINDS = ("gaussian_blur", "motion_blur", "gaussian_noise", "jpeg", "dark", "low_contrast")
CROP = 400  # pixels


def photos() -> dict[str, np.ndarray]:
    """Return six photographs by name, (H, W, 3) uint8."""
    folder = Path(sklearn.datasets.__file__).parent / "images"
    found = {name: np.asarray(Image.open(folder / f"{name}.jpg")) for name in ("china", "flower")}
    bundled = ("astronaut", "chelsea", "coffee", "rocket")
    return found | {name: getattr(skimage.data, name)() for name in bundled}


def crops(image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield two crops, from opposite corners."""
    height, width = image.shape[:2]
    side = min(CROP, height, width)
    yield "a", image[:side, :side]
    yield "b", image[height - side :, width - side :]


def write_images(folder: Path) -> list[dict[str, object]]:
    """Write clean crops and ladders of distortions; return a row for each."""
    rows: list[dict[str, object]] = []
    for photo, image in photos().items():
        for crop, clean in crops(image):
            steps = [("none", 0)] + [(kind, level) for kind in KINDS for level in LEVELS]
            for kind, level in steps:
                pixels = apply(clean, kind, level) if level else clean
                path = folder / f"{photo}-{crop}-{kind}-{level}.jpg"
                # A quality at which the file itself adds next to no distortion.
                Image.fromarray(pixels).save(path, quality=97, subsampling=0)
                rows.append(row(path, f"{photo}-{crop}", kind, level))
    return rows


def write_broken_files(folder: Path) -> list[dict[str, object]]:
    """Write a dozen files as they turn up in real collections; return a row for each."""
    encoded = (folder / "coffee-a-none-0.jpg").read_bytes()
    png = folder / "scratch.png"
    Image.fromarray(photos()["rocket"]).save(png)
    whole_png = png.read_bytes()
    png.unlink()
    huge = bytearray(whole_png)
    huge[16:24] = (100_000).to_bytes(4, "big") * 2  # 10 gigapixels, in a header with
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")  # the right checksum
    files = {
        "empty.jpg": b"",
        "cut-short.jpg": encoded[: len(encoded) // 2],
        "header-only.jpg": encoded[:200],
        "cut-short.png": whole_png[: len(whole_png) // 2],
        "huge-header.png": bytes(huge),
        "page.jpg": b"<!DOCTYPE html><title>404 Not Found</title>",
        "text.png": b"not an image\n",
        "zeros.jpg": bytes(4096),
        "magic-only.gif": b"GIF89a",
        "damaged.webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(24),
        "document.pdf.jpg": b"%PDF-1.7\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    paths = [folder / name for name in [*files, "never-downloaded.jpg"]]
    return [row(path, None, None, None) for path in paths]


def row(path: Path, photo: str | None, kind: str | None, level: int | None) -> dict[str, object]:
    """Return a line of the CSV file that becomes the manifest."""
    uri = path.relative_to(DEMO).as_posix()
    return {"uri": uri, "image_id": path.stem, "photo": photo, "distortion": kind, "level": level}


def run(*words: str) -> None:
    """Run `iqa` as a user would type it, and stop if it fails."""
    print(f"\n$ iqa {shlex.join(words)}", flush=True)
    status = iqa(words)
    if status:
        sys.exit(status)


def print_summary() -> None:
    """Print how the score follows the level of each distortion, and what became of each row."""
    parts = pa.concat_tables(pq.read_table(p) for p in sorted(DEMO.glob("scores/part-*.parquet")))
    frame = parts.to_pandas()
    clean = frame[frame.distortion == "none"].assign(level=0)
    print("\nMean score by level of distortion (0: the clean crop); SRCC of score and level")
    print(f"{'':16}" + "".join(f"{level:>8}" for level in (0, *LEVELS)) + f"{'SRCC':>8}")
    for kind in KINDS:
        ladder = frame[frame.distortion == kind]
        means = [clean.score.mean()]
        means += [ladder[ladder.level == level].score.mean() for level in LEVELS]
        agreement = srcc([*clean.score, *ladder.score], [*clean.level, *ladder.level])
        print(f"{kind:16}" + "".join(f"{mean:8.3f}" for mean in means) + f"{agreement:8.2f}")
    counts = pc.value_counts(parts.column("status")).to_pylist()
    statuses = ", ".join(f"{count['values']} {count['counts']}" for count in counts)
    rows_in = pq.read_metadata(DEMO / "manifest.parquet").num_rows
    print(f"\nRows in: {rows_in}; rows out: {len(parts)}; by status: {statuses}")


def main() -> None:
    """Make the images, and score them."""
    began = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    images = DEMO / "images"
    images.mkdir(parents=True)
    rows = write_images(images) + write_broken_files(images)
    with (DEMO / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest, scores = str(DEMO / "manifest.parquet"), str(DEMO / "scores")
    kept = ("photo", "distortion", "level")
    run("manifest", str(DEMO / "images.csv"), "--output", manifest)
    run("score", "--manifest", manifest, "--output", scores, "--keep", *kept)
    run("verify", "--scores", scores, "--manifest", manifest)
    report = str(DEMO / "report.html")
    run("report", "--scores", scores, "--output", report, "--title", "Demo: distorted photographs")
    print_summary()
    print(f"Look at {report} in a browser. ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
