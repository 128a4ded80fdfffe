"""The forecast of `iqa plan` against the run that follows.

    python -m benchmarks.plan [--rounds 5] [--seconds 6] [--only 640 ...] [--json FILE]

In each round `iqa plan` measures a sample of a manifest and forecasts, and then `iqa score` scores the
manifest; each in a process of its own, with a local Ray of its own. The run's steady state is measured as
in `benchmarks.job`: from the block that completes a quarter of its rows to the one that completes nine
tenths, as they came to the driver. A round gives one ratio of the two. Beside it stand what the run's own
summary says of its steady state, as a ratio to the same, and the forecast of the whole command's time.
Rows in and out are counted by `iqa score`, whose exit status must be 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import noting, steady_rate
from benchmarks.photos import files as photo_files
from benchmarks.photos import manifest
from benchmarks.results import Table, save, show, spread

SIZES = {"640": (640, 480), "1200": (1200, 900), "4000": (4000, 3000)}
#: Rows of the manifest that the first, uncounted plan samples.
_FIRST_ROWS = 4000


@dataclass(frozen=True)
class Round:
    """A forecast and the run that followed.

    Attributes:
        forecast: Images per second by `iqa plan`.
        run: Images per second of the run in steady state.
        summary: The same by the run's summary.
        forecast_seconds: Of the whole command, by `iqa plan`.
        seconds: Of the whole command.
        planning: Seconds that `iqa plan` took.
        rows: That the run scored.
    """

    forecast: float
    run: float
    summary: float
    forecast_seconds: float
    seconds: float
    planning: float
    rows: int


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each steady state")
    parser.add_argument("--only", nargs="+", choices=[*SIZES], default=[*SIZES])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            found[name] = measure(Path(folder), name, arguments.rounds, arguments.seconds)
            show([table({name: found[name]})])
    raw = {name: [asdict(each) for each in rounds] for name, rounds in found.items()}
    save("plan", [table(found)], raw=raw, path=arguments.json)


def table(found: dict[str, list[Round]]) -> Table:
    """Return the ratios, median and range over rounds."""
    rows = [
        [
            " x ".join(map(str, SIZES[name])),
            spread([each.forecast for each in rounds], "{:.1f}"),
            spread([each.run for each in rounds], "{:.1f}"),
            spread([each.forecast / each.run for each in rounds], "{:.3f}"),
            spread([each.summary / each.run for each in rounds], "{:.3f}"),
            spread([each.forecast_seconds / each.seconds for each in rounds], "{:.2f}"),
            spread([each.planning for each in rounds], "{:.0f}"),
        ]
        for name, rounds in found.items()
    ]
    columns = [
        "images",
        "forecast, images/s",
        "run, images/s",
        "forecast / run",
        "summary / run",
        "forecast / run, whole time",
        "planning, s",
    ]
    return Table("iqa plan against the run that follows, tiny on CPUs", columns, rows)


def measure(folder: Path, name: str, rounds: int, seconds: float) -> list[Round]:
    """Measure images of one size."""
    files = photo_files(SIZES[name])
    place = folder / name
    first, _ = plan(manifest(place, files, _FIRST_ROWS), seconds)  # also warms the file cache
    rows = max(256, round(first["images_per_second"] * seconds / 0.6))
    path = manifest(place, files, rows)
    found = []
    for _ in range(rounds):
        found.append(run(place, path, rows, seconds))
        print(f"{name}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def plan(path: Path, seconds: float) -> tuple[dict[str, Any], float]:
    """Return the forecast of `iqa plan`, and the seconds that it took."""
    words = [sys.executable, "-m", "jobs", "plan", "--manifest", str(path), "--json"]
    began = time.monotonic()
    done = subprocess.run(
        [*words, "--measure-seconds", str(seconds)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)["forecast"]
    return found, time.monotonic() - began


def run(folder: Path, path: Path, rows: int, seconds: float) -> Round:
    """Forecast a run, and measure it."""
    found, planning = plan(path, seconds)
    notes, output = folder / "notes", folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    notes.unlink(missing_ok=True)
    words = ["score", "--manifest", str(path), "--output", str(output), "--max-error-rate", "0"]
    began = time.monotonic()
    done = subprocess.run(noting(notes, words), capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode or f"{rows:,} rows in, {rows:,} rows out" not in done.stdout:
        raise RuntimeError(f"{done.stdout}\n{done.stderr}")
    summary = json.loads((output / "_run/summary.json").read_text())
    return Round(
        forecast=found["images_per_second"],
        run=steady_rate(notes.read_text().splitlines(), rows),
        summary=summary["steady_images_per_second"],
        forecast_seconds=found["seconds"],
        seconds=took,
        planning=planning,
        rows=rows,
    )


if __name__ == "__main__":
    main()
