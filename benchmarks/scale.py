"""Opening, resuming, planning and auditing of up to a billion rows: seconds and peak memory.

    python -m benchmarks.scale [--rows 1000000 10000000 100000000 1000000000] [--folder F] [--json FILE]
    python -m benchmarks.scale --quick

Writes a manifest of files of 100,000 rows (hard links to one file) and the part files of an earlier run
that has finished 99 % of them: 100,000 rows each, in blocks of 128 rows from four manifest files, in the
order in which a run would finish them. Then a process of its own does what a run does before its first
image and after its last: it opens the manifest, reads what is committed, plans the rest (scattered blocks),
and audits. Then two drivers (`--shard 0/2` and `1/2`) finish the rest at the same time, and `iqa verify`
reads every column of every part file. Rows are counted in each step; a wrong count ends the benchmark.
A second table opens manifests on a store that takes 50 ms for each request.

Writing takes about 1.5 minutes and 0.3 GB for each 100,000,000 rows, and is not part of the times.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem, register_implementation
from pyroaring import BitMap

from benchmarks.results import Table, save, show
from iqa_core.tables.audit import audit
from iqa_core.tables.manifest import Manifest, open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import output_schema
from jobs.scoring.plan import ScoringPlan
from jobs.verify import Config, run

_FILE_ROWS = 100_000
_BLOCK = 128
_TOGETHER = 4  # manifest files that are read at the same time
_LEFT = 0.01
_ROWS = (10**6, 10**7, 10**8, 10**9)
_DELAY = 0.05


def write_manifest(folder: Path, files: int) -> None:
    """Write the files of a manifest."""
    folder.mkdir(parents=True)
    uris = [f"s3://bucket/images/{number:09d}.jpg" for number in range(_FILE_ROWS)]
    template = folder.parent / "template.parquet"
    pq.write_table(pa.table({"uri": uris}), template, row_group_size=50_000)
    for file in range(files):
        os.link(template, folder / f"{file:06d}.parquet")


def write_parts(folder: Path, manifest: Manifest) -> int:
    """Write part files with 99 % of a manifest's rows, in scattered blocks; return their number."""
    output = Output(str(folder), manifest, {"benchmark": "scale"})
    rng = np.random.default_rng(0)
    written = 0
    with output.start({}):
        for start in range(0, len(manifest.files), _TOGETHER):
            files = manifest.files[start : start + _TOGETHER]
            blocks = [(f, b) for f in range(len(files)) for b in range(0, _FILE_ROWS, _BLOCK)]
            order = rng.permutation(len(blocks))[: round(len(blocks) * (1 - _LEFT))]
            for part in np.array_split(order, len(files)):
                rows = [
                    (blocks[b][0], np.arange(blocks[b][1], min(_FILE_ROWS, blocks[b][1] + _BLOCK)))
                    for b in part
                ]
                places = np.repeat([f for f, _ in rows], [len(r) for _, r in rows])
                names = pa.DictionaryArray.from_arrays(
                    pa.array(places.astype(np.int32)), [file.name for file in files]
                )
                numbers = np.concatenate([numbers for _, numbers in rows])
                output.write(part_table(manifest, names, numbers))
                written += len(numbers)
    return written


def part_table(manifest: Manifest, names: pa.Array, numbers: np.ndarray) -> pa.Table:
    """Return finished rows with one pair's scores."""
    schema = output_schema(manifest, (), pairs=("quality",))
    columns = {field.name: pa.nulls(len(numbers), field.type) for field in schema}
    columns["manifest_file"] = names
    columns["manifest_row"] = pa.array(numbers, pa.int64())
    columns["status"] = pa.repeat("ok", len(numbers)).dictionary_encode()
    columns["score"] = pa.array(np.full(len(numbers), 0.5, np.float32))
    return pa.table(columns)


class Steps:
    """Measures the steps of a process."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.before_mb = self._peak()

    @staticmethod
    def _peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the seconds of a step."""
        began = time.perf_counter()
        yield
        self.found[name] = time.perf_counter() - began

    def close(self, **facts: Any) -> None:
        """Print what was found, for the parent process."""
        print(json.dumps(self.found | facts | {"peak_mb": self._peak()}))


def resume(folder: Path, rows: int) -> None:
    """Do what a run does before its first row and after its last."""
    steps = Steps()
    with steps.step("open"):
        manifest = open_manifest(str(folder / "manifest"))
    with steps.step("committed"):
        output = Output(str(folder / "scores"), manifest, {"benchmark": "scale"})
    done = output.committed().rows
    with steps.step("fresh plan"):
        check(ScoringPlan.of(manifest, (), RowSet()).rows, rows)
    with steps.step("plan"):
        plan = ScoringPlan.of(manifest, (), done)
    with steps.step("audit"):
        result = audit(manifest, done)
    check(manifest.rows, rows)
    check(result.missing, plan.rows)
    check(len(done), rows - plan.rows)
    check(result.twice + result.unknown, 0)
    steps.close(slices=len(plan.slices), files=len(manifest.files), done=len(done))


def finish_shard(folder: Path, shard: str) -> None:
    """Write what is left of a shard, and audit it."""
    steps = Steps()
    manifest = open_manifest(str(folder / "manifest")).only(Shard.of(shard))
    output = Output(str(folder / "scores"), manifest, {"benchmark": "scale"})
    print("ready", flush=True)
    sys.stdin.readline()
    written = 0
    with steps.step("write and audit"), output.start({}):
        for names, numbers in left_of(manifest, output):
            output.write(part_table(manifest, names, numbers))
            written += len(numbers)
        result = output.audit()
        check(int(result.passed), 1)
    steps.close(rows=result.found, written=written)


def scattered(folder: Path, rows: int) -> None:
    """Plan and audit if every other row is done, which no run-length encoding makes small."""
    steps = Steps()
    manifest = open_manifest(str(folder / "manifest"))
    done = RowSet.of_bitmaps({file.name: BitMap(range(0, file.rows, 2)) for file in manifest.files})
    with steps.step("plan"):
        plan = ScoringPlan.of(manifest, (), done)
    with steps.step("audit"):
        result = audit(manifest, done)
    check(plan.rows, rows // 2)
    check(result.missing, rows // 2)
    steps.close()


def left_of(manifest: Manifest, output: Output) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Yield identities of what a shard lacks, about 100,000 rows at a time."""
    names: list[pa.Array] = []
    numbers: list[np.ndarray] = []
    done = output.committed().rows
    for file in manifest.files:
        left = np.array(BitMap(file.wanted) - done.rows(file.name), dtype=np.int64)
        names.append(pa.repeat(file.name, len(left)))
        numbers.append(left)
        if sum(map(len, numbers)) >= _FILE_ROWS or file is manifest.files[-1]:
            if any(map(len, numbers)):
                yield pa.concat_arrays(names), np.concatenate(numbers)
            names, numbers = [], []


def verify(folder: Path, rows: int) -> None:
    """Run `iqa verify` over the whole output."""
    steps = Steps()
    text = io.StringIO()
    with steps.step("verify"), redirect_stdout(text):
        config = Config(scores=str(folder / "scores"), manifest=str(folder / "manifest"), json=True)
        status = run(config)
    findings = json.loads(text.getvalue())
    check(status, 0)
    check(findings["found"], rows)
    check(findings["twice"] + findings["missing"] + findings["unknown"], 0)
    steps.close(parts=findings["parts"])


class DelayedFiles(AbstractFileSystem):  # type: ignore[misc]
    """Local files behind requests that take a time each, with checksums in listings as S3 has them."""

    protocol = "delayed"

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder; a request lists 1,000 files."""
        names = sorted(os.listdir(path))
        time.sleep(_DELAY * (1 + len(names) // 1000))
        infos = [self._info(f"{path.rstrip('/')}/{name}") for name in names]
        return infos if detail else [info["name"] for info in infos]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return information on a file: one request."""
        time.sleep(_DELAY)
        return self._info(path)

    def _info(self, path: str) -> dict[str, Any]:
        kind = "directory" if os.path.isdir(path) else "file"
        return {"name": path, "size": os.path.getsize(path), "type": kind, "ETag": f"of {path}"}

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Read a range of a file: one request."""
        time.sleep(_DELAY)
        with open(path, "rb") as file:
            file.seek(start or 0)
            return file.read(-1 if end is None else end - (start or 0))


def store(folder: Path, rows: int) -> None:
    """Open a manifest on a store that takes a time for each request."""
    register_implementation("delayed", DelayedFiles)
    steps = Steps()
    with steps.step("open"):
        manifest = open_manifest(f"delayed://{folder / 'manifest'}")
    check(manifest.rows, rows)
    steps.close(files=len(manifest.files))


def check(found: int, expected: int) -> None:
    """End the benchmark if rows were lost."""
    if found != expected:
        raise SystemExit(f"{found:,} where {expected:,} were expected")


def words(step: str, folder: Path, argument: object) -> list[str]:
    """Return the command of a step in a process of its own, whose memory is its own."""
    return [sys.executable, "-m", "benchmarks.scale", "--step", step, str(folder), str(argument)]


def measured(step: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run a step; return what it found."""
    done = subprocess.run(words(step, folder, rows), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def two_shards(folder: Path) -> list[dict[str, Any]]:
    """Finish the two halves of a manifest at the same time."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    drivers = [
        subprocess.Popen(words("shard", folder, f"{index}/2"), text=True, **pipes)  # type: ignore[call-overload]
        for index in range(2)
    ]
    for driver in drivers:
        driver.stdout.readline()
    for driver in drivers:
        driver.stdin.write("\n")
        driver.stdin.flush()
    ends = [driver.communicate()[0] for driver in drivers]
    check(max(driver.returncode for driver in drivers), 0)
    return [json.loads(end.splitlines()[-1]) for end in ends]


def measure(rows: int, place: Path | None) -> dict[str, Any]:
    """Write a manifest and an output of so many rows, and run all steps over them."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        began = time.perf_counter()
        write_manifest(folder / "manifest", rows // _FILE_ROWS)
        manifest = open_manifest(str(folder / "manifest"))
        done = write_parts(folder / "scores", manifest)
        seconds = time.perf_counter() - began
        print(f"{rows:,} rows: {done:,} written in {seconds:.0f} s", flush=True)
        found: dict[str, Any] = {"rows": rows, "write": seconds}
        found["resume"] = measured("resume", folder, rows)
        check(found["resume"]["done"], done)
        found["scattered"] = measured("scattered", folder, rows)
        found["store"] = measured("store", folder, rows)
        found["shards"] = two_shards(folder)
        check(sum(shard["rows"] for shard in found["shards"]), rows)
        check(sum(shard["written"] for shard in found["shards"]), rows - done)
        found["verify"] = measured("verify", folder, rows)
    return found


def tables_of(results: list[dict[str, Any]]) -> list[Table]:
    """Return the tables of the page."""
    resumed, shards = [], []
    for found in results:
        run, rows = found["resume"], f"{found['rows']:,}"
        seconds = [
            f"{run[name]:.2f}" for name in ("open", "committed", "fresh plan", "plan", "audit")
        ]
        resumed.append([rows, f"{run['files']:,}", *seconds, f"{run['peak_mb']:,.0f}",
                        f"{found['store']['open']:.2f}", f"{found['scattered']['plan']:.2f}",
                        f"{found['scattered']['peak_mb']:,.0f}"])  # fmt: skip
        both, proof = found["shards"], found["verify"]
        shards.append([rows, f"{sum(each['written'] for each in both):,}",
                       f"{max(each['write and audit'] for each in both):.1f}",
                       f"{max(each['peak_mb'] for each in both):,.0f}", f"{proof['parts']:,}",
                       f"{proof['verify']:.1f}", f"{proof['peak_mb']:,.0f}"])  # fmt: skip
    return [
        Table(
            "Before the first image and after the last, 99 % done: seconds, and peak memory in MB",
            ("rows", "files", "open", "read what is done", "plan all", "plan the rest", "audit",
             "peak MB", "open, 50 ms a request", "plan, every other row done", "its peak MB"),
            resumed,
        ),
        Table(
            "Two shards at the same time write the rest, then `iqa verify` reads everything",
            ("rows", "written", "write and audit, s", "peak MB of a driver", "part files",
             "verify, s", "peak MB of verify"),
            shards,
        ),
    ]  # fmt: skip


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(_ROWS))
    parser.add_argument("--quick", action="store_true", help="1,000,000 and 10,000,000 rows only")
    parser.add_argument(
        "--folder", type=Path, help="where to write (default: the temporary folder)"
    )
    parser.add_argument("--json", type=Path, help="file of the results")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder, argument = arguments.step
        if step == "shard":
            finish_shard(Path(folder), argument)
        else:
            steps = {"resume": resume, "scattered": scattered, "store": store, "verify": verify}
            steps[step](Path(folder), int(argument))
        return
    results = []
    for rows in _ROWS[:2] if arguments.quick else arguments.rows:
        results.append(measure(rows, arguments.folder))
        show(tables_of(results))
    notes = [
        "Each step is a process of its own; peak memory is its resident set, with about 150 MB of imports.",
        "Rows are counted in each step: done, left, written by each shard, found by `iqa verify`.",
    ]
    save("scale", tables_of(results), notes=notes, raw=results, path=arguments.json)


if __name__ == "__main__":
    main()
