"""Kill parts of a scoring run at random moments, run it again until it is done, and check every row.

    python -m tools.chaos --runs 30

Each run scores a manifest of 2,000 images on a cluster of three Ray nodes on this machine. SIGKILL
hits the driver, a scoring actor, a reading worker or a node's raylet, twice in a row. Afterwards
the same command runs until it ends with status 0. The output must hold every row once, with the
scores of an undisturbed run. Printed beside: the finished work that each kill of a driver cost, which
is what had come to it since its last part file, in rows and in the age of the oldest of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
from PIL import Image
from ray.cluster_utils import Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("driver", "actor", "reader", "raylet")
COMMIT_SECONDS = 2.0
#: The command, noting when finished rows come to the driver and when they are in a part file.
_NOTING = """
import os, sys, time
from iqa_core.tables.output import Output
from jobs import cli
from jobs.scoring import driver

class Noting(driver.Collector):
    def add(self, table):
        super().add(table)
        note(len(table))

def noting_write(self, table, write=Output.write):
    write(self, table)
    note(-len(table))

def note(rows):
    os.write(notes, f"{time.time()} {rows}\\n".encode())

notes = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
driver.Collector = Noting
Output.write = noting_write
sys.exit(cli.main())
"""
_TITLES = {"actor": "ray::MapWorker(MapBatches(ImageActor))", "reader": "ray::MapBatches(read"}
_ATTEMPTS = 8
_RUN_SECONDS = 240


@dataclass
class Chaos:
    """A cluster, a manifest, and the scores of an undisturbed run.

    Args:
        folder: Where manifest and outputs go.
        rows: Rows of the manifest.
        seed: Of targets and times.
    """

    folder: Path
    rows: int = 2000
    seed: int = 0
    costs: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.manifest = self.folder / "images" / "manifest.parquet"
        self.manifest.parent.mkdir(parents=True)
        photo = skimage.data.astronaut()
        for number in range(50):
            crop = photo[number : number + 200, number : number + 240]
            Image.fromarray(crop).save(self.manifest.parent / f"{number}.jpg")
        uris = [f"{number % 50}.jpg" for number in range(self.rows)]
        pq.write_table(pa.table({"uri": uris}), self.manifest, row_group_size=200)
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        self.nodes = [self.cluster.add_node(num_cpus=2) for _ in range(2)]

    def close(self) -> None:
        """Stop the cluster that was started here."""
        self.cluster.shutdown()

    def undisturbed(self) -> None:
        """Score once without faults, for comparison."""
        output = self.folder / "undisturbed"
        process = self._start(output)
        said, _ = process.communicate(timeout=_RUN_SECONDS)
        if process.returncode:
            raise RuntimeError(f"the undisturbed run failed: {said}")
        self.expected = self._scores(output)

    def run(self, name: str, targets: Sequence[str]) -> str:
        """Score with a kill for each target, then until done; return a line, or raise."""
        output = self.folder / name
        process = self._start(output)
        hits = []
        for target in targets:
            self._wait(process, output)
            hits.append(f"{target} {self._kill(target, process, output)}")
            if process.poll() is not None:
                process.communicate()
                process = self._start(output)
        attempts = 1
        while True:
            try:
                said, _ = process.communicate(timeout=_RUN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
                raise RuntimeError(f"{name}: hangs: {said}") from None
            if process.returncode == 0:
                break
            attempts += 1
            if attempts > _ATTEMPTS:
                raise RuntimeError(f"{name}: {said}")
            process = self._start(output)
        self._heal()
        found = self._scores(output)
        if set(found) != set(self.expected):
            raise RuntimeError(f"{name}: {len(self.expected) - len(found)} rows missing")
        change = max(abs(found[row] - self.expected[row]) for row in found)
        if not change <= 1e-5:
            raise RuntimeError(f"{name}: scores differ by {change}")
        return (
            f"{name}: {', '.join(hits)}; done after {attempts} more; 0 lost, 0 twice, {change:.0e}"
        )

    def _start(self, output: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", _NOTING, str(self._notes(output)), "score"]
        words += ["--manifest", str(self.manifest)]
        words += ["--output", str(output), "--address", self.cluster.address]
        words += ["--commit-seconds", str(COMMIT_SECONDS), "--num-actors", "2"]
        words.append("--shared-filesystem")
        return subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _notes(self, output: Path) -> Path:
        return self.folder / f"{output.name}.notes"

    def _cost(self, output: Path) -> tuple[float, int]:
        """Return the age of the oldest finished row that is in no part file, and how many are not."""
        now = time.time()
        notes = self._notes(output)
        waiting: deque[tuple[float, int]] = deque()  # blocks in the order of their arrival
        for line in notes.read_text().splitlines() if notes.exists() else ():
            moment, count = float(line.split()[0]), int(line.split()[1])
            if count > 0:
                waiting.append((moment, count))
            while count < 0:
                count += waiting.popleft()[1]
        return now - waiting[0][0] if waiting else 0.0, sum(rows for _, rows in waiting)

    def _wait(self, process: subprocess.Popen[str], output: Path) -> None:
        """Wait until rows flow (or the run ends), and a random while longer."""
        before = len(list(output.glob("part-*.parquet")))
        deadline = time.monotonic() + _RUN_SECONDS
        # One time in four, hit while it starts.
        eager = self.random.random() < 0.25
        while process.poll() is None and time.monotonic() < deadline and not eager:
            if len(list(output.glob("part-*.parquet"))) > before:
                break
            time.sleep(0.05)
        time.sleep(self.random.uniform(0, 3))

    def _kill(self, target: str, process: subprocess.Popen[str], output: Path) -> str:
        if process.poll() is not None:
            return "(was done)"
        if target == "driver":
            process.kill()
            process.wait()  # else the next kill would take it for a run that was done
            self.costs.append(self._cost(output))
            self._notes(output).unlink(missing_ok=True)
            return "(cost {1} finished rows, the oldest {0:.1f} s old)".format(*self.costs[-1])
        if target == "raylet":
            node = self.nodes.pop(self.random.randrange(len(self.nodes)))
            self.cluster.remove_node(node, allow_graceful=False)
            self.nodes.append(self.cluster.add_node(num_cpus=2))
            return "(and a new node)"
        deadline = time.monotonic() + 10
        # A worker has the title of its task only while the task runs.
        while not (victims := self._workers(_TITLES[target])):
            if process.poll() is not None or time.monotonic() > deadline:
                return "(none was there)"
        victim = self.random.choice(victims)
        os.kill(victim, signal.SIGKILL)
        return ""

    def _workers(self, title: str) -> list[int]:
        """Return worker processes of this cluster's nodes by the title that Ray gives them."""
        found = []
        for node in self.cluster.list_all_nodes():
            for info in node.all_processes.get("raylet", []):
                for child in psutil.Process(info.process.pid).children(recursive=True):
                    try:
                        if " ".join(child.cmdline()).startswith(title):
                            found.append(child.pid)
                    except psutil.NoSuchProcess:
                        continue
        return found

    def _heal(self) -> None:
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=2))

    def _scores(self, output: Path) -> dict[tuple[str, int], float]:
        words = [sys.executable, "-m", "jobs", "verify", "--scores", str(output), "--json"]
        done = subprocess.run(
            [*words, "--manifest", str(self.manifest)], cwd=ROOT, capture_output=True, text=True
        )
        findings = json.loads(done.stdout)
        if not findings["passed"]:
            raise RuntimeError(f"{output.name} does not verify: {findings}")
        table = pa.concat_tables(pq.read_table(path) for path in output.glob("part-*.parquet"))
        columns = (table.column(name).to_pylist() for name in ("manifest_file", "manifest_row"))
        return dict(zip(zip(*columns, strict=True), table.column("score").to_pylist(), strict=True))


def main() -> None:
    """Run, and print a line for each run and the cost of the kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", choices=TARGETS, help="hit this first in each run (default: in turn)"
    )
    arguments = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), arguments.rows, arguments.seed)
        try:
            chaos.undisturbed()
            for number in range(arguments.runs):
                targets = (arguments.first or TARGETS[number % 4], chaos.random.choice(TARGETS))
                print(chaos.run(f"run {number}", targets), flush=True)
        finally:
            chaos.close()
    print(f"{arguments.runs} runs verified: 0 lost, 0 twice, scores equal to the undisturbed run")
    if chaos.costs:
        ages, rows = np.array(chaos.costs).T
        print(
            f"{len(ages)} killed drivers cost {np.median(rows):.0f} finished rows in the median, "
            f"{rows.max():.0f} at most, the oldest {np.median(ages):.1f} s and at most {ages.max():.1f} s "
            f"old; --commit-seconds {COMMIT_SECONDS:g}"
        )


if __name__ == "__main__":
    main()
