"""What `iqa score --dedupe` saves on a manifest with copies.

    python -m benchmarks.dedupe [--rounds 3] [--rows 1200] [--copies 0.3] [--json FILE]

A manifest of JPEG files (640 x 480) of which a share are copies: other files with equal bytes. In one
manifest a copy stands within 200 rows of its original, in another anywhere. `iqa score` runs without
and with `--dedupe` in turn, in processes of their own, with one actor and with one for each CPU: an actor
knows only what it has met itself. Compared are the busy seconds of decoding and of the model, which do not
depend on Ray's start. Rows in and out are counted by `iqa score` itself, and the scores of both runs are
compared row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.photos import crop_to, encode, photographs
from benchmarks.results import Table, save, show, spread

SIZE = (640, 480)
#: Rows within which a copy stands beside its original.
NEARBY = 200


@dataclass(frozen=True)
class Round:
    """One pair of runs, without and with ``--dedupe``.

    Attributes:
        plain: Busy seconds of decoding and of the model without it.
        deduped: Likewise with it.
        found: Share of the rows that were not encoded again.
        difference: The largest difference of a score.
    """

    plain: float
    deduped: float
    found: float
    difference: float


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--copies", type=float, default=0.3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[tuple[str, int], list[Round]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifests = write_manifests(folder, arguments.rows, arguments.copies)
        actors = sorted({1, os.cpu_count() or 1})
        for _ in range(arguments.rounds):
            for order, path in manifests.items():
                for number in actors:
                    each = run(folder, path, number, arguments.rows)
                    found.setdefault((order, number), []).append(each)
    tables = [table(found, arguments.copies), hash_table()]
    show(tables)
    raw = {
        f"{order}, {actors}": [asdict(r) for r in rounds]
        for (order, actors), rounds in found.items()
    }
    save("dedupe", tables, raw=raw, path=arguments.json)


def write_manifests(folder: Path, rows: int, copies: float) -> dict[str, Path]:
    """Write images, and the two manifests that name them."""
    generator = np.random.default_rng(0)
    bases = [crop_to(photo, SIZE) for photo in photographs()]
    originals = rows - round(rows * copies)
    for number in range(originals):
        # Shifted by some pixels, so that each file is another one that is as hard to decode.
        pixels = np.roll(np.asarray(bases[number % len(bases)]), number, axis=(0, 1))
        (folder / f"{number}.jpg").write_bytes(encode(Image.fromarray(pixels), "JPEG"))
    sources = generator.choice(originals, rows - originals)
    for number, source in enumerate(sources):
        shutil.copyfile(folder / f"{source}.jpg", folder / f"copy-{number}.jpg")
    names = [f"{number}.jpg" for number in range(originals)]
    named = [f"copy-{number}.jpg" for number in range(len(sources))]
    places = np.arange(originals, dtype=float)
    orders = {
        "nearby": sources + generator.uniform(0, NEARBY * originals / rows, len(sources)),
        "random": generator.uniform(0, originals, len(sources)),
    }
    found = {}
    for order, of_copies in orders.items():
        every = np.array(names + named)[
            np.argsort(np.concatenate([places, of_copies]), kind="stable")
        ]
        found[order] = folder / f"{order}.parquet"
        pq.write_table(pa.table({"uri": every}), found[order])
    return found


def run(folder: Path, manifest: Path, actors: int, rows: int) -> Round:
    """Score without and with ``--dedupe``."""
    busy, scores, repeated = [], [], 0
    for options in ([], ["--dedupe"]):
        output = folder / "scores"
        shutil.rmtree(output, ignore_errors=True)
        words = ["score", "--manifest", str(manifest), "--output", str(output)]
        words += ["--num-actors", str(actors), "--max-error-rate", "0", *options]
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *words], capture_output=True, text=True
        )
        if done.returncode or f"{rows:,} rows in, {rows:,} rows out" not in done.stdout:
            raise RuntimeError(f"{done.stdout}\n{done.stderr}")
        summary = json.loads((output / "_run/summary.json").read_text())
        busy.append(summary["stage_seconds"]["decode"] + summary["stage_seconds"]["model"])
        repeated = summary["last_run"]["repeated"] or 0
        parts = [pq.read_table(path) for path in output.glob("part-*.parquet")]
        table = pa.concat_tables(parts).sort_by("manifest_row")
        scores.append(table.column("score").to_numpy())
    difference = float(np.abs(scores[0] - scores[1]).max())
    return Round(busy[0], busy[1], repeated / rows, difference)


def table(found: dict[tuple[str, int], list[Round]], copies: float) -> Table:
    """Return what was saved, median and range over rounds."""
    rows = []
    for (order, actors), rounds in sorted(found.items()):
        saved = spread([1 - each.deduped / each.plain for each in rounds], "{:.1%}")
        most = max(each.difference for each in rounds)
        seen = spread([each.found for each in rounds], "{:.1%}")
        rows.append([order, str(actors), seen, saved, f"{most:.1g}"])
    head = [
        "copies",
        "actors",
        "rows not encoded",
        "decode and model time saved",
        "largest |score difference|",
    ]
    return Table(f"iqa score --dedupe, {copies:.0%} of the rows are copies", head, rows)


def hash_table() -> Table:
    """Return the rate of the hash."""
    data = np.random.default_rng(0).bytes(3_000_000)
    rates = []
    for _ in range(15):
        began = time.perf_counter()
        blake2b(data, digest_size=16).hexdigest()
        rates.append(len(data) / 1e6 / (time.perf_counter() - began))
    return Table("Hash of an image's bytes, one thread", ["MB/s"], [[spread(rates, "{:.0f}")]])


if __name__ == "__main__":
    main()
