"""A long run against a short one: memory of the driver and the workers, and images per second.

    python -m benchmarks.long_run [--rows 1000000] [--short 10000] [--rounds 5] [--folder F] [--json FILE]

Both are `iqa score` in a process of its own, with a local Ray on two CPUs. The images are small JPEGs in
the manifest, which are really decoded; the tower is a stub that takes 0.5 ms an image, so that a million
rows take minutes and what is measured is all that is not the tower. Memory is what a process holds for
itself (resident less shared), sampled twice a second in the driver and everything that it started. The
long run's second rate is that of its last tenth against its first, after a twentieth for the start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # comes with Ray
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.job import noting, steady_rate
from benchmarks.photos import files as photo_files
from benchmarks.results import Table, save, show, spread

_FILE_ROWS = 100_000
_EVERY = 0.5
#: `iqa` with a stub for the image tower; the first argument is the file of the notes.
_COMMAND = """
import time
from dataclasses import replace

import numpy as np

from iqa_core.preprocess import Preprocess
from jobs.scoring import run

class Stub:
    preprocess = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)

    def __init__(self, width, digest):
        self.width, self.digest = width, digest

    def to_device(self, device, precision):
        return self

    def encode(self, pixels):
        import torch

        time.sleep(len(pixels) * 0.0005)
        features = np.zeros((len(pixels), self.width), np.float32)
        features[:, 0] = 1.0
        return torch.from_numpy(features)

load = run._load
def stubbed(model, config):
    towers = load(model, config)
    return replace(towers, image=Stub(towers.image.width, towers.image.digest))
run._load = stubbed
"""


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        rows: That it scored.
        rate: Images per second in steady state.
        late: Rate of its last tenth, divided by that of its first.
        driver_mb: Peak of the driver's own memory.
        worker_mb: Peak of the largest worker's.
        all_mb: Peak of the sum over the driver and everything that it started.
    """

    rows: int
    rate: float
    late: float
    driver_mb: float
    worker_mb: float
    all_mb: float


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--short", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="of the short run")
    parser.add_argument("--folder", type=Path, help="where to write")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        half = arguments.rounds // 2
        short = [measure(folder, arguments.short) for _ in range(half)]
        long = measure(folder, arguments.rows)
        short += [measure(folder, arguments.short) for _ in range(arguments.rounds - half)]
    tables = [table(short, long)]
    show(tables)
    save("long_run", tables, raw=[asdict(each) for each in [*short, long]], path=arguments.json)


def table(short: list[Run], long: Run) -> Table:
    """Return the two lengths side by side, and what the long one has more."""
    forms = {"rate": "{:,.0f}", "driver_mb": "{:,.0f}", "worker_mb": "{:,.0f}", "all_mb": "{:,.0f}"}
    both = [
        [f"{runs[0].rows:,} rows"]
        + [spread([getattr(run, name) for run in runs], form) for name, form in forms.items()]
        for runs in (short, [long])
    ]
    more = ["long / short", spread([long.rate / run.rate for run in short], "{:.3f}")]
    for name in ("driver_mb", "worker_mb", "all_mb"):
        more.append(spread([getattr(long, name) - getattr(run, name) for run in short], "{:+,.0f}"))
    late = ["last tenth / first of the long run", f"{long.late:.3f}", "", "", ""]
    head = ["run", "images/s", "driver, MB", "largest worker, MB", "all processes, MB"]
    return Table(
        "A long run and short ones, with a stub tower of 0.5 ms", head, [*both, more, late]
    )


def measure(folder: Path, rows: int) -> Run:
    """Run the command on so many rows."""
    source = folder / f"manifest-{rows}"
    if not source.exists():
        write_manifest(source, rows)
    notes, output = folder / "notes", folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    notes.unlink(missing_ok=True)
    words = ["score", "--manifest", str(source), "--output", str(output), "--model", "tiny"]
    command = noting(notes, words)
    command[2] = _COMMAND + command[2]
    peak: dict[str, float] = defaultdict(float)
    with (folder / "log").open("w+") as log:
        job = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while job.poll() is None:
            for name, megabytes in memory(job.pid).items():
                peak[name] = max(peak[name], megabytes)
            time.sleep(_EVERY)
        log.seek(0)
        text = log.read()
    if job.returncode or f"{rows:,} rows in, {rows:,} rows out" not in text:
        raise RuntimeError(text)
    lines = notes.read_text().splitlines()
    run = Run(rows, steady_rate(lines, rows), late_share(lines, rows), **peak)
    print(run, flush=True)
    return run


def write_manifest(folder: Path, rows: int) -> None:
    """Write files of at most 100,000 rows; all but the last are links to one file."""
    photos = photo_files((64, 48))
    folder.mkdir()
    for start in range(0, rows, _FILE_ROWS):
        count = min(_FILE_ROWS, rows - start)
        made = folder.parent / f"rows-{count}.parquet"
        if not made.exists():
            images = [{"bytes": photos[row % len(photos)], "path": None} for row in range(count)]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            table = pa.table({"image": pa.array(images, kind)})
            pq.write_table(table, made, row_group_size=1000, use_dictionary=False)
        os.link(made, folder / f"{start:09d}.parquet")


def memory(driver: int) -> dict[str, float]:
    """Return the megabytes that a driver and the processes below it hold for themselves."""
    found = {"driver_mb": 0.0, "worker_mb": 0.0, "all_mb": 0.0}
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(driver)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                info = process.memory_info()
                own = (info.rss - info.shared) / 2**20
                found["all_mb"] += own
                if process.pid == driver:
                    found["driver_mb"] = own
                elif process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                    found["worker_mb"] = max(found["worker_mb"], own)
    return found


def late_share(notes: list[str], rows: int) -> float:
    """Return the rate from 85 to 95 % of the rows, divided by that from 5 to 15 %."""
    total = 0
    moments: list[tuple[float, float]] = []
    for line in notes:
        moment, count = line.split()
        total += int(count)
        moments.append((total / rows, float(moment)))

    def rate(low: float, high: float) -> float:
        between = [each for each in moments if low <= each[0] <= high]
        (first, began), (last, ended) = between[0], between[-1]
        return (last - first) / (ended - began) if ended > began else float("nan")

    return rate(0.85, 0.95) / rate(0.05, 0.15)


if __name__ == "__main__":
    main()
