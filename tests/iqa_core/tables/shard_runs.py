"""A run of one shard in a process of its own, for test_output_shards.py; it needs no Ray.

    python -m tests.iqa_core.tables.shard_runs MANIFEST OUTPUT SHARD MODEL PART_ROWS

Prints `started` within the lease, then waits for a line before each part file that it writes.
"""

from __future__ import annotations

import sys

import pyarrow as pa

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema


def rows(manifest, numbers, status="ok"):
    """Return rows of a manifest as a table, by (file, row number)."""
    schema = output_schema(manifest, (), pairs=["p"])
    score = 0.5 if status == "ok" else None
    return pa.Table.from_pylist(
        [
            {"manifest_file": file, "manifest_row": row, "status": status, "score": score}
            for file, row in numbers
        ],
        schema=schema,
    )


def left(manifest, output):
    """Return what an output lacks of a manifest or of its shard."""
    done = output.committed().rows
    return [
        (file.name, row)
        for file in manifest.files
        for row in file.wanted
        if row not in done.rows(file.name)
    ]


def say(line):
    print(line, flush=True)


def main(uri, folder, shard, model, part_rows) -> None:
    manifest = open_manifest(uri).only(None if shard == "-" else Shard.of(shard))
    try:
        output = Output(folder, manifest, {"model": model}, 20.0)
        with output.start({}):
            say("started")
            to_do = left(manifest, output)
            for start in range(0, len(to_do), int(part_rows)):
                sys.stdin.readline()
                output.write(rows(manifest, to_do[start : start + int(part_rows)]))
                say("wrote")
            result = output.audit()
            output.finish({"complete": result.passed})
            say(f"passed {result.found}" if result.passed else f"failed: {result}")
    except InputError as error:
        say(f"refused: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
