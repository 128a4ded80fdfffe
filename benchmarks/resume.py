"""How long a run needs to find out what is left to do, and how much memory, with 10 million rows done.

    python -m benchmarks.resume [--rows 10000000] [--part-rows 200000]

Writes a manifest and the part files of an earlier run (all rows done but the last 1,000), then opens
both as `iqa score` does, up to the first new row read. Towers and Ray are not part of it.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import read_slice
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from iqa_core.tables.slices import plan_slices

_FILES = 10
_LEFT = 1000


def write(folder: Path, rows: int, part_rows: int) -> None:
    """Write the manifest and the part files."""
    each = rows // _FILES
    for file in range(_FILES):
        uris = pa.array(np.char.add(f"s3://bucket/{file}/", np.arange(each).astype(str)))
        path = folder / "manifest" / f"{file}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"uri": uris}), path, row_group_size=50_000)
    manifest = open_manifest(str(folder / "manifest"))
    schema = output_schema(manifest, (), pairs=("quality",))
    output = Output(str(folder / "scores"), manifest, {})
    with output.start({}):
        for file in range(_FILES):
            stop = each if file < _FILES - 1 else each - _LEFT
            # Rows come in the order in which they were finished, not in that of the manifest.
            numbers = np.random.default_rng(file).permutation(stop)
            for start in range(0, stop, part_rows):
                part = numbers[start : start + part_rows]
                columns = {
                    name: pa.nulls(len(part), schema.field(name).type) for name in schema.names
                }
                columns["manifest_file"] = pa.array([f"{file}.parquet"] * len(part))
                columns["manifest_row"] = pa.array(part, pa.int64())
                columns["status"] = pa.array(["ok"] * len(part))
                output.write(pa.table(columns).cast(schema))


def resume(folder: Path) -> None:
    """Do what a run does before its first row; print seconds and memory."""
    began = time.perf_counter()
    manifest = open_manifest(str(folder / "manifest"))
    output = Output(str(folder / "scores"), manifest, {})
    units = list(plan_slices(manifest, output.committed().rows))
    first = next(read_slice(manifest.folder, units[0], (), manifest.image_id_type, 32))
    seconds = time.perf_counter() - began
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    left = manifest.rows - len(output.committed().rows)
    committed = output.committed()
    print(
        f"{len(committed.rows):,} rows in {len(committed.parts)} part files, {left:,} left; "
        f"first row {first.column('manifest_row')[0]} after {seconds:.1f} s; {megabytes:.0f} MB at most"
    )


def main() -> None:
    """Write in this process, and resume in a new one, whose memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--part-rows", type=int, default=200_000)
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resume:
        resume(arguments.resume)
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.rows, arguments.part_rows)
        words = [sys.executable, "-m", "benchmarks.resume", "--resume", folder]
        subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
