"""The job in steady state against its bare parts.

    python -m benchmarks.job [--rounds 5] [--seconds 8] [--only tiny-640 ...] [--json FILE]

The bare limit is as many plain processes as there are CPUs, each of which reads, decodes and scores the
same images in a loop with the functions that the job uses: no Ray, no manifest, no output. The job is
`iqa score` in a process of its own with a local Ray. Its steady state is the time in which the middle of
its rows came to the driver, from the block that completes a quarter of the rows to the one that completes
nine tenths; its rate is the slope of a line through all of them. What other processes of the job than the
workers take of all CPUs in that time is the driver's, of reading, and Ray's own. Bare parts and job run in
turn, and each pair of them gives one ratio. Rows in and out are counted by `iqa score` itself, whose exit
status must be 0. On a few CPUs 12 s are some twenty blocks, and one more or less shows: `--seconds 40`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # comes with Ray
import pyarrow as pa

from benchmarks.photos import files as photo_files
from benchmarks.photos import manifest
from benchmarks.results import Table, save, show, spread

#: Model, width, height, whether the manifest holds the bytes.
SETTINGS: dict[str, tuple[str, int, int, bool]] = {
    "tiny 640 x 480": ("tiny", 640, 480, False),
    "tiny 1200 x 900": ("tiny", 1200, 900, False),
    "tiny 4000 x 3000": ("tiny", 4000, 3000, False),
    "tiny 4000 x 3000 inline": ("tiny", 4000, 3000, True),
    "ViT-B-32 640 x 480": ("ViT-B-32", 640, 480, False),
}
#: `iqa score`, noting when finished rows come to the driver.
_NOTING = """
import os, sys, time
from jobs import cli
from jobs.scoring import driver

class Noting(driver.Collector):
    def add(self, table):
        super().add(table)
        os.write(notes, f"{time.monotonic()} {len(table)}\\n".encode())

notes = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
driver.Collector = Noting
sys.exit(cli.main())
"""


@dataclass(frozen=True)
class Round:
    """One pair of measurements.

    Attributes:
        bare: Images per second of the bare parts.
        job: Images per second of the job in steady state.
        seconds: Of the whole command.
        rows: That the job scored.
        outside: Seconds of the command that its rows would not take in steady state.
        others: Share of all CPUs that other processes than the workers take in steady state: the driver,
            reading, and Ray's own.
    """

    bare: float
    job: float
    seconds: float
    rows: int
    outside: float
    others: float


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each steady state")
    parser.add_argument("--only", nargs="+", choices=[*SETTINGS], default=[*SETTINGS])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            found[name] = measure(Path(folder), name, arguments.rounds, arguments.seconds)
            show([table({name: found[name]})])
    raw = {name: [asdict(each) for each in rounds] for name, rounds in found.items()}
    save("job", [table(found)], raw=raw, path=arguments.json)


def table(found: dict[str, list[Round]]) -> Table:
    """Return the ratios, median and range over rounds."""
    rows = [
        [
            name,
            spread([each.bare for each in rounds], "{:.1f}"),
            spread([each.job for each in rounds], "{:.1f}"),
            spread([each.job / each.bare for each in rounds], "{:.3f}"),
            spread([each.outside for each in rounds], "{:.1f}"),
            spread([100 * each.others for each in rounds], "{:.0f}"),
        ]
        for name, rounds in found.items()
    ]
    head = ["images", "bare, images/s", "job, images/s", "job / bare", "outside steady state, s"]
    head.append("CPU beside the workers, %")
    return Table(f"iqa score on {os.cpu_count()} CPUs against its bare parts", head, rows)


def measure(folder: Path, name: str, rounds: int, seconds: float) -> list[Round]:
    """Measure one kind of images."""
    model, width, height, inline = SETTINGS[name]
    weights = random_weights(folder, model)
    files = photo_files((width, height))
    place = folder / f"{width}"
    rate = bare_rate(weights, files, seconds / 4)
    rows = max(256, round(rate * seconds / 0.6))
    path = manifest(place, files, rows, inline=inline)
    read = files if inline else sorted(place.glob("*.jpg"))
    return [run(folder, path, weights, read, rows, seconds) for _ in range(rounds)]


def random_weights(folder: Path, model: str) -> str:
    """Return a model's ``--model`` text; weights that can't be downloaded here are random ones."""
    if model == "tiny":
        return model
    path = folder / f"{model}.pt"
    if not path.exists():
        import open_clip
        import torch

        torch.manual_seed(0)
        torch.save(open_clip.create_model(model).state_dict(), path)
    return f"{model}@{path}"


def run(
    folder: Path,
    path: Path,
    model: str,
    files: Sequence[bytes | Path],
    rows: int,
    seconds: float,
) -> Round:
    """Measure the bare parts before and after the job, and the job."""
    before = bare_rate(model, files, seconds / 2)
    notes, output = folder / "notes", folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    notes.unlink(missing_ok=True)
    words = ["score", "--manifest", str(path), "--output", str(output), "--model", model]
    words = noting(notes, [*words, "--max-error-rate", "0"])
    began = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    job = subprocess.Popen(words, **pipes)
    samples: list[tuple[float, float]] = []
    watch = threading.Thread(target=watch_others, args=(job, samples))
    watch.start()
    said, _ = job.communicate()
    took = time.monotonic() - began
    watch.join()
    if job.returncode or f"{rows:,} rows in, {rows:,} rows out" not in said:
        raise RuntimeError(said)
    steady = steady_part(notes.read_text().splitlines(), rows)
    (start, _), (stop, _) = steady[0], steady[-1]
    rate = slope(steady)
    bare = (before + bare_rate(model, files, seconds / 2)) / 2
    within = [sample for sample in samples if start <= sample[0] <= stop]
    (first_at, before_cpu), (last_at, after_cpu) = within[0], within[-1]
    others = (after_cpu - before_cpu) / (last_at - first_at) / (os.cpu_count() or 1)
    return Round(bare, rate, took, rows, took - rows / rate, others)


def watch_others(job: subprocess.Popen[str], samples: list[tuple[float, float]]) -> None:
    """Note moments, and the CPU seconds of all processes of a job but the workers; until it ends."""
    spent: dict[int, float] = {}
    while job.poll() is None:
        with suppress(psutil.NoSuchProcess):
            driver = psutil.Process(job.pid)
            for process in [driver, *driver.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    if not any("MapWorker" in word for word in process.cmdline()[:1]):
                        times = process.cpu_times()
                        spent[process.pid] = times.user + times.system
        samples.append((time.monotonic(), sum(spent.values())))
        time.sleep(0.5)


def noting(notes: Path, words: list[str]) -> list[str]:
    """Return the command of `iqa` that also notes when finished rows come to the driver.

    Args:
        notes: The file to note them in.
        words: Arguments of `iqa`.
    """
    return [sys.executable, "-c", _NOTING, str(notes), *words]


def steady_rate(notes: list[str], rows: int) -> float:
    """Return rows per second from a quarter to nine tenths of the rows."""
    return slope(steady_part(notes, rows))


def slope(steady: list[tuple[float, int]]) -> float:
    """Return rows per second as the slope of a straight line through moments and rows.

    Blocks that come in pairs, as two workers finish at the same time, would make a rate between the first
    and the last block wrong by a block.
    """
    moments, rows = np.array(steady).T
    return float(np.polyfit(moments - moments[0], rows, 1)[0])


def steady_part(notes: list[str], rows: int) -> list[tuple[float, int]]:
    """Return moments, and the rows that had come by then, from a quarter to nine tenths of them."""
    total = 0
    reached: list[tuple[float, int]] = []
    for line in notes:
        moment, count = line.split()
        total += int(count)
        if rows / 4 <= total <= 0.9 * rows:
            reached.append((float(moment), total))
    return reached


def bare_rate(model: str, files: Sequence[bytes | Path], seconds: float) -> float:
    """Return images per second of plain processes, one for each CPU."""
    context = multiprocessing.get_context("spawn")
    cpus = os.cpu_count() or 1
    barrier = context.Barrier(cpus)
    with context.Pool(cpus, _set_barrier, (barrier,)) as pool:
        return sum(pool.map(partial(_bare, model=model, files=files, seconds=seconds), range(cpus)))


_barrier: Any = None


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _bare(_: int, *, model: str, files: Sequence[bytes | Path], seconds: float) -> float:
    """Decode and score in a loop; return images per second."""
    import torch

    from iqa_core.clip.load import load_towers
    from iqa_core.images.decode import decode_image
    from iqa_core.prompts.pairs import DEFAULT_PAIRS, load_pairs
    from iqa_core.scoring.columns import score_columns
    from iqa_core.scoring.encode import encode_images
    from iqa_core.scoring.features import encode_prompts

    torch.set_num_threads(1)
    towers = load_towers(model)
    prompts = encode_prompts(towers, load_pairs(DEFAULT_PAIRS))
    tower = towers.image.to_device("cpu", "fp32")
    done = 0

    def batch() -> None:
        encoded = [files[(done + i) % len(files)] for i in range(32)]
        read = [each if isinstance(each, bytes) else each.read_bytes() for each in encoded]
        pixels = [decode_image(each, towers.preprocess).pixels for each in read]
        features, failed = encode_images(tower.encode, pixels, towers.image.width)
        scores = score_columns(features, prompts)
        if failed or scores["score"].null_count:
            raise RuntimeError(f"an image was not scored: {failed}")
        assert isinstance(scores["score"], pa.Array)

    batch()
    _barrier.wait()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        batch()
        done += 32
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
