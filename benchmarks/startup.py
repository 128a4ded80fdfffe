"""From the command to its first committed row (`tiny`, a local Ray), and commands with nothing to do.

    python -m benchmarks.startup [--runs 5] [--rows 2000] [--quick] [--json FILE]

Each run is a process of its own, on images of 640 x 480 pixels (JPEG) and with files in the page cache.
`iqa score` runs with `--commit-seconds 0.1` until its first part file appears, is asked to stop then, and
must leave whole rows. Times of its steps are taken within the process (loading the model and starting Ray
overlap); CPU seconds and memory are those of its processes when the part file appeared.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.results import Table, save, show, spread

_IMAGES = 100
_PATIENCE = 300.0
#: Part of a process's command line -> its name in the table; the first that fits.
_KINDS = {
    "gcs_server": "Ray: control store",
    "raylet/raylet": "Ray: raylet",
    "monitor": "Ray: monitors",
    "dashboard.py": "Ray: dashboard",
    "DashboardAgent": "Ray: agents",
    "RuntimeEnvAgent": "Ray: agents",
    "agent": "Ray: agents",
    "default_worker": "Ray: idle worker",
    "ray::": "workers",
}
_TICKS = os.sysconf("SC_CLK_TCK")


def write_data(folder: Path, rows: int) -> Path:
    """Write images and their manifest, in which images repeat; return the manifest."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(_IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        image = coarse.resize((640, 480), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{number}.jpg", quality=90)
    uris = [f"images/{row % _IMAGES}.jpg" for row in range(rows)]
    path = folder / f"{rows}.parquet"
    pq.write_table(pa.table({"uri": uris}), path)
    return path


def traced(words: list[str], trace: Path) -> int:
    """Run a command in this process; write when its steps began and ended, in seconds of wall time."""
    events: dict[str, float] = {"main": time.time()}

    def note(owner: Any, name: str, event: str) -> None:
        function = getattr(owner, name)
        inner = getattr(function, "__func__", function)

        def call(*positions: Any, **options: Any) -> Any:
            events.setdefault(f"{event} begins", time.time())
            try:
                return inner(*positions, **options)
            finally:
                events.setdefault(f"{event} ends", time.time())
                trace.write_text(json.dumps(events))

        setattr(owner, name, classmethod(call) if inner is not function else call)

    import jobs.score
    from iqa_core.tables.output import Output
    from jobs.cli import main
    from jobs.cluster import Cluster
    from jobs.progress import Progress
    from jobs.scoring import run
    from jobs.scoring.plan import ScoringPlan

    events["imports end"] = time.time()
    note(jobs.score, "run", "run")
    note(run._Run, "open", "open")
    note(Cluster, "start", "ray")
    note(run, "lightest_towers", "load")
    note(run._Run, "load", "prompts")
    note(run._Run, "execute", "execute")
    note(ScoringPlan, "of", "plan")
    note(Progress, "__init__", "pipeline")
    note(Progress, "add", "block")
    note(Output, "write", "commit")
    return main(words)


def processes(root: int) -> dict[int, tuple[str, float, float]]:
    """Return name, CPU seconds and own memory (MB) of a process and its descendants, by id."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(stat[1]), stat)
            except OSError:
                continue
    found = {}
    for process, (_, stat) in parents.items():
        ancestor = process
        while ancestor not in (root, 0, 1) and ancestor in parents:
            ancestor = parents[ancestor][0]
        if ancestor != root:
            continue
        try:
            line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        own = sum(int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Private_"))
        seconds = (int(stat[11]) + int(stat[12])) / _TICKS
        found[process] = (line, seconds, own / 1024)
    return found


def first_commit(manifest: Path, folder: Path) -> dict[str, Any]:
    """Run `iqa score` until its first part file; return times, CPU seconds and memory."""
    output, trace = folder / "scores", folder / "trace.json"
    words = ["score", "--manifest", str(manifest), "--output", str(output)]
    words += ["--commit-seconds", "0.1"]
    command = [sys.executable, "-m", "benchmarks.startup", "--trace", str(trace), *words]
    began, clock = time.time(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not any(output.glob("part-*.parquet")):
        if process.poll() is not None or time.perf_counter() - clock > _PATIENCE:
            process.kill()
            raise SystemExit(f"no row was committed: {process.communicate()[0].decode()}")
        time.sleep(0.005)
    seconds = time.perf_counter() - clock
    found = processes(process.pid)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=_PATIENCE)[0].decode()
    rows = sum(pq.read_metadata(path).num_rows for path in output.glob("part-*.parquet"))
    if process.returncode not in (0, 143) or not rows:
        raise SystemExit(f"a run failed ({process.returncode}): {text}")
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = {}
    for number, (line, used, own) in found.items():
        kinds = (name for part, name in _KINDS.items() if part in line)
        name = "driver" if number == process.pid else next(kinds, "other")
        if name == "workers":  # by what they do: ray::MapWorker(...).submit()
            name = line.removeprefix("ray::").split("(")[0].partition(".")[0].strip()
            name = "Ray: idle worker" if name.startswith("IDLE") else f"worker: {name}"
        cpu[name] += used
        memory[name] = max(own, memory.get(name, 0.0))
    events = json.loads(trace.read_text())
    return {
        "seconds": seconds,
        "rows": rows,
        "events": {name: at - began for name, at in events.items()},
        "cpu": dict(cpu),
        "memory": memory,
    }


#: Rows of the table of steps: name, the events between which it lies.
_STEPS = (
    ("interpreter", None, "main"),
    ("imports of the command", "main", "imports end"),
    ("manifest, facts, output", "run begins", "open ends"),
    ("Ray's processes (beside loading)", "ray begins", "ray ends"),
    ("torch, open_clip, weights (beside Ray)", "load begins", "load ends"),
    ("features of the prompts", "load ends", "prompts ends"),
    ("imports of Ray Data, lease, plan", "execute begins", "plan ends"),
    ("pipeline to its first block", "pipeline begins", "block begins"),
    ("first block to its part file", "block begins", "commit ends"),
)


def steps(events: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each step that the run had."""
    found = {}
    for name, first, last in _STEPS:
        if last in events and (first is None or first in events):
            found[name] = events[last] - (events[first] if first else 0.0)
    return found


def timed(words: list[str]) -> tuple[float, float]:
    """Run a command to its end; return wall and CPU seconds."""
    before = os.times()
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *words], capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - began
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{words} failed ({done.returncode}): {done.stdout}{done.stderr}")
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return wall, cpu


def nothing_to_do(folder: Path, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Complete outputs of each command, then measure the same commands again, interleaved."""
    manifest, scores = str(folder / f"{_IMAGES}.parquet"), str(folder / "all")
    features, again = str(folder / "features"), str(folder / "again")
    commands = {
        "iqa score": ["score", "--manifest", manifest, "--output", scores],
        "iqa embed": ["embed", "--manifest", manifest, "--output", features],
        "iqa rescore": ["rescore", "--features", features, "--output", again],
    }
    for words in commands.values():
        timed(words)
    commands["iqa verify"] = ["verify", "--manifest", manifest, "--scores", scores]
    commands |= {f"iqa {name} --help": [name, "--help"] for name in ("score", "train", "manifest")}
    commands["iqa --help"] = ["--help"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, words in commands.items():
            times[name].append(timed(words))
    return times


def tables(runs: list[dict[str, Any]], idle: dict[str, list[tuple[float, float]]]) -> list[Table]:
    """Return the tables of all measurements."""
    columns = ("step", "seconds")
    every = [steps(run["events"]) for run in runs]
    rows = [(name, spread([run[name] for run in every])) for name, *_ in _STEPS if name in every[0]]
    rows.append(("command to first committed row", spread([run["seconds"] for run in runs])))
    names = sorted({name for run in runs for name in run["cpu"]})
    cpu = [(name, spread([run["cpu"].get(name, 0.0) for run in runs])) for name in names]
    cpu.append(("all", spread([sum(run["cpu"].values()) for run in runs])))
    names = sorted({name for run in runs for name in run["memory"]})
    memory = [
        (name, spread([run["memory"][name] for run in runs if name in run["memory"]], "{:.0f}"))
        for name in names
    ]
    again = [
        (name, *(spread(values) for values in zip(*times, strict=True)))
        for name, times in idle.items()
    ]
    return [
        Table("Command to first committed row, seconds", columns, rows),
        Table("CPU seconds until then, by process", ("process", "CPU seconds"), cpu),
        Table(
            "Memory of one process then (the largest), not shared with others",
            ("process", "MB"),
            memory,
        ),
        Table("Nothing to do", ("command", "seconds", "CPU seconds"), again),
    ]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="two runs")
    parser.add_argument("--json", type=Path, help="where to store the results")
    arguments = parser.parse_args()
    count = 2 if arguments.quick else arguments.runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_data(folder, arguments.rows)
        uris = pq.read_table(manifest).slice(0, _IMAGES)
        pq.write_table(uris, folder / f"{_IMAGES}.parquet")
        idle = nothing_to_do(folder, count)  # it also warms the file cache
        runs = []
        for number in range(count):
            place = folder / f"run{number}"
            place.mkdir()
            runs.append(first_commit(manifest, place))
            print(f"first row after {runs[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    found = tables(runs, idle)
    show(found)
    notes = [
        f"{arguments.rows:,} rows of 640 x 480 pixels; runs were stopped after their first part file, "
        f"which had {', '.join(str(run['rows']) for run in runs)} rows."
    ]
    print(*notes)
    if arguments.json:
        save("startup", found, notes=notes, raw={"runs": runs, "idle": idle}, path=arguments.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        sys.exit(traced(sys.argv[3:], Path(sys.argv[2])))
    main()
