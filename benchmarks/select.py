"""`iqa select`: every kind against pandas, and seconds and memory on large outputs.

    python -m benchmarks.select [--rows 1000000] [--parts 50] [--memory 500MB] [--folder F] [--json FILE]
    python -m benchmarks.select --rows 100000000 --parts 500

Up to five million rows, an output of made-up scores is selected from in every way that the tests know, each
in a process of its own, and the rows of each manifest are compared with a reference in pandas, one by one.
Of more rows, the output is generated part by part, and the rows of four selections are counted against what
the generator knows. Seconds are of the whole command, memory is the process's highest resident size.
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
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.results import Table, save, show
from iqa_core.tables.part_content import PartContent
from iqa_core.tables.part_encoding import write_options
from tests.iqa_core.selecting.outputs import PAIRS, SCHEMA, made_up, write_output
from tests.iqa_core.selecting.references import REFERENCES, in_order

_COMPARED = 5_000_000  # rows up to which pandas is asked, too
_CLASSES = ("bird", "cat", "dog", "fish")
_FILE_ROWS = 10_000_000
_HEAD = ["selection", "rows kept", "seconds", "rows a second", "memory, MB"]


def run_select(
    scores: str, target: Path, memory: str, words: list[str]
) -> tuple[int, float, float]:
    """Select; return rows kept, seconds, and the highest resident size in MB."""
    command = [sys.executable, "-m", "jobs", "select", "--scores", scores, "--output", str(target)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--memory", memory, "--json", *words], stdout=subprocess.PIPE
    )
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    seconds = time.perf_counter() - begin
    assert status == 0, (words, out)
    return json.loads(out)["selected"], seconds, usage.ru_maxrss / 1024


def words_of(request: dict) -> list[str]:
    """Return the options of a request."""
    words = []
    for name, value in request.items():
        flag = "--status" if name == "statuses" else f"--{name.replace('_', '-')}"
        words += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def compare(rows: int, parts: int, memory: str, folder: Path) -> list[dict]:
    """Run every kind of selection, and compare its rows with pandas."""
    frame = made_up(rows)
    scores = write_output(folder / "scores", frame, parts)
    found = []
    for place, (kind, (request, reference)) in enumerate(REFERENCES.items()):
        target = folder / f"{place}.parquet"
        kept, seconds, size = run_select(scores, target, memory, words_of(request))
        table = pq.read_table(target, columns=["manifest_file", "manifest_row"])
        identities = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        assert identities == in_order(reference(frame)), kind
        assert kept == len(identities)
        found.append({"kind": kind, "kept": kept, "seconds": seconds, "memory": size})
        print(f"{kind}: equal, {kept:,} rows, {seconds:.1f} s, {size:.0f} MB", flush=True)
        target.unlink()
    return found


def generate(folder: Path, rows: int, parts: int) -> dict[str, int]:
    """Write an output part by part; return the rows that each selection has to keep."""
    (folder / "_run").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ok_rows = matching = 0
    schema = pa.schema([*SCHEMA, ("class", pa.string())])
    options = write_options(schema)
    for part in range(parts):
        first, stop = part * rows // parts, (part + 1) * rows // parts
        count = stop - first
        numbers = np.arange(first, stop)
        failed = rng.random(count) < 0.02
        score = rng.beta(4, 3, count).astype(np.float32)
        noise = rng.random(count, np.float32)
        width = rng.integers(200, 4000, count).astype(np.int32)
        ok_rows += int((~failed).sum())
        matching += int(
            (~failed & (score > np.float32(0.6)) & (noise > 0.5) & (width >= 512)).sum()
        )
        texts = pc.cast(pa.array(numbers), pa.string())
        pairs = pa.StructArray.from_arrays(
            [pa.array(score), pa.array(noise)], fields=list(PAIRS), mask=pa.array(failed)
        )
        names = [f"list-{i:04d}.parquet" for i in range(-(-rows // _FILE_ROWS))]
        files = pa.DictionaryArray.from_arrays(pa.array(numbers // _FILE_ROWS), names)
        columns = [
            files.cast(pa.string()),
            pa.array(numbers % _FILE_ROWS),
            pc.binary_join_element_wise("image-", texts, ""),
            pc.binary_join_element_wise("s3://photos/set/", texts, ".jpg", ""),
            pa.array(np.where(failed, "timeout", "ok")),
            pa.array(np.where(failed, "no answer", None), pa.string()),
            pa.array(score, mask=failed),
            pairs,
            pairs,
            pa.array(width),
            pa.array(width),
            pa.DictionaryArray.from_arrays(rng.integers(0, 4, count), _CLASSES).cast(pa.string()),
        ]
        table = pa.table(columns, schema=schema)
        name = f"part-{part:06d}.parquet"
        content = PartContent.of(name, table, "0" * 16)
        pq.write_table(table.replace_schema_metadata(content.metadata()), folder / name, **options)
    plan = {"manifest": "s3://lists/all", "rows": rows, "files": []}
    (folder / "_run/plan.json").write_text(json.dumps(plan))
    return {"expression": matching, "quantile": ok_rows // 5, "best": 4 * 1000, "sample": 10_000}


def large(rows: int, parts: int, memory: str, folder: Path) -> tuple[list[dict], str]:
    """Generate an output and select from it."""
    begin = time.perf_counter()
    expected = generate(folder / "scores", rows, parts)
    size = sum(path.stat().st_size for path in (folder / "scores").glob("*.parquet"))
    note = (
        f"The output of {rows:,} rows in {parts} parts has {size / 1e9:.2f} GB; making it took "
        f"{time.perf_counter() - begin:.0f} s."
    )
    print(note, flush=True)
    selections = {
        "expression": ["--where", "score > 0.6 and scores.noise > 0.5 and width >= 512"],
        "quantile": ["--top", "20%"],
        "best": ["--best", "1000", "--by", "class"],
        "sample": ["--sample", "10000", "--stratify", "score"],
    }
    found = []
    for place, (kind, words) in enumerate(selections.items()):
        target = folder / f"{place}.parquet"
        kept, seconds, most = run_select(str(folder / "scores"), target, memory, words)
        written = pq.read_metadata(target).num_rows
        assert kept == written == expected[kind], (kind, kept, written, expected[kind])
        found.append({"kind": " ".join(words), "kept": kept, "seconds": seconds, "memory": most})
        print(f"{kind}: {kept:,} rows, {seconds:.1f} s, {most:.0f} MB", flush=True)
        target.unlink()
    return found, note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=50)
    parser.add_argument("--memory", default="500MB")
    parser.add_argument("--folder", help="where files are made and removed (default: temporary)")
    parser.add_argument("--json", type=Path, help="file of the results")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="benchmark-select-", dir=options.folder))
    limits = (options.rows, options.parts, options.memory, folder)
    try:
        if options.rows <= _COMPARED:
            found = compare(*limits)
            note = f"Each selection from {options.parts} parts equals pandas row for row."
        else:
            found, note = large(*limits)
    finally:
        shutil.rmtree(folder)
    cells = [
        [
            one["kind"],
            f"{one['kept']:,}",
            f"{one['seconds']:.1f}",
            f"{options.rows / one['seconds']:,.0f}",
            f"{one['memory']:,.0f}",
        ]
        for one in found
    ]
    title = f"Selections from {options.rows:,} rows, DuckDB limited to {options.memory}"
    tables = [Table(title, _HEAD, cells)]
    show(tables)
    print(save("select", tables, notes=[note], raw=found, path=options.json))


if __name__ == "__main__":
    main()
