"""Cached features a second: reading alone, with scoring, and with writing the scores; on one core and two.

    python -m benchmarks.rescore [--rows 1000000] [--rounds 5] [--width 512] [--folder F] [--json FILE]
    python -m benchmarks.rescore --quick

Writes a feature cache as `iqa embed` does (float16, part files of 100,000 rows), and a second one of a
tenth of the rows as versions up to 0.2 did (compressed by zstd, with dictionaries). Then processes that may
use one or two cores read it, read and score it by five prompt pairs, and do all that `iqa rescore` does but
loading the model: read, score, write part files, and audit. Variants take turns. Rows are counted, and
scores of a sample are compared with the plain formula in float64. A million rows of width 512 take 1.1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.results import Table, save, show, spread
from iqa_core.columns import SCORE
from iqa_core.scoring.features import PromptFeatures
from iqa_core.tables.audit import audit
from iqa_core.tables.feature_cache import FeatureCache, feature_column
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.read_ahead import available_cpus, in_order
from iqa_core.tables.schema import output_schema
from iqa_core.tables.sink import write_tables
from jobs.scoring.rescore import scored_tables

_PART_ROWS = 100_000
_PAIRS = 5
_STEPS = {
    "read": "reading alone",
    "score": "reading and scoring",
    "all": "reading, scoring, writing, audit",
}


def unit(*shape: int, seed: int) -> np.ndarray:
    """Return random unit vectors, float32."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values


def prompts_of(width: int) -> PromptFeatures:
    """Return five pairs of random text features."""
    names = tuple(f"pair_{number}" for number in range(_PAIRS))
    return PromptFeatures(names, unit(_PAIRS, 2, width, seed=1), 100.0, "benchmark")


def write_cache(folder: Path, rows: int, width: int, *, as_before: bool) -> None:
    """Write a manifest of so many rows, and a feature cache with all of them."""
    folder.mkdir()
    uris = [f"s3://bucket/images/{number:09d}.jpg" for number in range(rows)]
    pq.write_table(pa.table({"uri": uris}), folder / "manifest.parquet")
    manifest = open_manifest(str(folder / "manifest.parquet"))
    schema = output_schema(manifest, (), embedding=width)
    output = Output(str(folder / "features"), manifest, {"model": "benchmark"})
    with output.start({}):
        for start in range(0, rows, _PART_ROWS):
            count = min(_PART_ROWS, rows - start)
            columns = {field.name: pa.nulls(count, field.type) for field in schema}
            columns["manifest_file"] = pa.repeat("manifest.parquet", count)
            columns["manifest_row"] = pa.array(np.arange(start, start + count))
            columns["uri"] = pa.array(uris[start : start + count])
            columns["status"] = pa.repeat("ok", count)
            columns["embedding"] = feature_column(unit(count, width, seed=start))
            output.write(pa.table(columns).cast(schema))
    if as_before:
        for path in (folder / "features").glob("part-*.parquet"):
            pq.write_table(pq.ParquetFile(path).read(), path, compression="zstd")


def work(folder: Path, step: str) -> None:
    """Do a step; print rows, seconds and peak memory as JSON."""
    torch.set_num_threads(1)
    cache = FeatureCache(str(folder / "features"))
    manifest = cache.manifest()
    prompts = prompts_of(cache.width)
    schema = output_schema(manifest, (), pairs=prompts.names)
    began, cpu = time.perf_counter(), time.process_time()
    rows = run_step(cache, prompts, schema, step, folder / f"out-{os.getpid()}")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu": cpu, "peak_mb": peak}))


def run_step(
    cache: FeatureCache, prompts: PromptFeatures, schema: pa.Schema, step: str, folder: Path
) -> int:
    """Do a step once; return the rows that came out."""
    workers = available_cpus()
    if step == "read":
        return sum(len(block.rows) for block in in_order(cache.blocks(["uri", "status"]), workers))
    manifest = cache.manifest()
    output = Output(str(folder), manifest, {"benchmark": "rescore"})
    tables = scored_tables(cache, prompts, schema, output.committed().rows, workers)
    if step == "score":
        return sum(map(len, tables))
    with output.start({}):
        write_tables(output, tables, 200_000)
        result = output.audit()
    if not audit(manifest, output.committed().rows).passed:
        raise SystemExit(str(result))
    return result.found


def compare(folder: Path, width: int) -> float:
    """Return the share of a part file's scores that equal the plain formula in float64 bit for bit."""
    cache, prompts = FeatureCache(str(folder / "features")), prompts_of(width)
    schema = output_schema(cache.manifest(), (), pairs=prompts.names)
    output = Output(str(folder / "none"), cache.manifest(), {})
    table = next(scored_tables(cache, prompts, schema, output.committed().rows, 1))
    block = next(iter(cache.blocks([])))()
    images = block.features.astype(np.float64)
    directions = (prompts.features[:, 0].astype(np.float64) - prompts.features[:, 1]).T
    margins = (prompts.logit_scale * (images @ directions)).astype(np.float32)
    scores = torch.from_numpy(margins).sigmoid().numpy()
    expected = scores.mean(axis=1, dtype=np.float64).astype(np.float32)
    return float(np.mean(table.column(SCORE).to_numpy() == expected))


def measured(folder: Path, step: str, cores: int) -> dict[str, Any]:
    """Do a step in a process that may use so many cores."""
    words = [sys.executable, "-m", "benchmarks.rescore", "--step", step, "--folder", str(folder)]
    cpus = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=partial(os.sched_setaffinity, 0, cpus),
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def variants(folder: Path, rows: int) -> Iterator[tuple[str, Path, str, int, int]]:
    """Yield title, folder, step, cores and rows of each variant."""
    for step, title in _STEPS.items():
        for cores in (1, 2):
            yield title, folder / "now", step, cores, rows
    yield "reading and scoring, as stored up to 0.2", folder / "before", "score", 2, rows // 10


def main() -> None:
    """Measure all variants in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="200,000 rows, 2 rounds")
    parser.add_argument(
        "--folder", type=Path, help="where to write (default: the temporary folder)"
    )
    parser.add_argument("--json", type=Path, help="file of the results")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        work(arguments.folder, arguments.step)
        return
    rows, rounds = (200_000, 2) if arguments.quick else (arguments.rows, arguments.rounds)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_cache(folder / "now", rows, arguments.width, as_before=False)
        write_cache(folder / "before", rows // 10, arguments.width, as_before=True)
        equal = compare(folder / "now", arguments.width)
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for title, place, step, cores, expected in variants(folder, rows):
                result = measured(place, step, cores)
                if result["rows"] != expected:
                    raise SystemExit(f"{title}: {result['rows']:,} rows of {expected:,}")
                found.setdefault((title, cores), []).append(result)
    table = Table(
        f"Cached features of width {arguments.width} a second, {_PAIRS} pairs, {rows:,} rows",
        ("step", "cores", "thousand rows/s", "CPU a row, us", "peak MB"),
        [
            [title, str(cores), spread([r["rows"] / r["seconds"] / 1e3 for r in each], "{:,.0f}"),
             spread([r["cpu"] / r["rows"] * 1e6 for r in each]),
             f"{max(r['peak_mb'] for r in each):,.0f}"]
            for (title, cores), each in found.items()
        ],
    )  # fmt: skip
    note = f"{equal:.2%} of the scores of a sample equal the plain formula in float64 bit for bit."
    show([table])
    print(note)
    raw = {f"{title}, {cores}": each for (title, cores), each in found.items()}
    save("rescore", [table], notes=[note], raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
