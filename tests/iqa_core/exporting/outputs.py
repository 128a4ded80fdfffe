"""A finished output for tests of exports, written by the package's own sink."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output

WIDTH = 4


def rows_of(manifest, first, stop, *, embedding=True):
    """Return finished rows; every tenth was not found."""
    numbers = np.arange(first, stop)
    ok = numbers % 10 != 3
    score = pa.array(numbers / 1000, pa.float32(), mask=~ok)
    pairs = [pa.array(numbers / 1000 + place, pa.float32()) for place in range(2)]
    struct = pa.StructArray.from_arrays(pairs, ["quality", "noise"], mask=pa.array(~ok))
    features = np.repeat(numbers, WIDTH).astype(np.float16)
    columns = {
        "manifest_file": pa.array([manifest.files[0].name] * len(numbers)),
        "manifest_row": pa.array(numbers, pa.int64()),
        "image_id": pa.nulls(len(numbers), pa.string()),
        "uri": pa.array([f"{n}.png" for n in numbers]),
        "status": pa.array(np.where(ok, "ok", "not_found").tolist()),
        "error": pa.array([None if good else 'gone, "really"' for good in ok], pa.string()),
        "score": score,
        "scores": struct,
        "margins": struct,
        "width": pa.array(numbers, pa.int32()),
        "height": pa.array(numbers, pa.int32()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(features), WIDTH),
        "class": pa.array((numbers % 5).astype(np.uint8)),
    }
    if not embedding:
        del columns["embedding"]
    return pa.table(columns)


def write_output(folder, count=60, parts=3, *, finished=True, embedding=True, kept=None):
    """Write a manifest and an output of it, in some part files; return the output's folder.

    ``kept`` has further columns, by name, of ``count`` values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uris = [f"{n}.png" for n in range(count)]
    pq.write_table(pa.table({"uri": uris}), folder / "manifest.parquet")
    manifest = open_manifest(str(folder / "manifest.parquet"))
    output = Output(str(folder / "scores"), manifest, {"model": "tiny", "prompts": "p" * 64})
    edges = np.linspace(0, count, parts + 1).astype(int)
    slices = list(itertools.pairwise(edges))
    with output.start({}):
        for first, stop in slices if finished else slices[:-1]:
            rows = rows_of(manifest, first, stop, embedding=embedding)
            for name, column in (kept or {}).items():
                rows = rows.append_column(name, column[first:stop])
            output.write(rows)
    return folder / "scores"


def write_images(folder, count=60):
    """Write the images of the manifest, each of another colour."""
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")


def table_of(scores):
    """Return the rows of an output, in order."""
    parts = [pq.read_table(path) for path in sorted(scores.glob("part-*.parquet"))]
    return pa.concat_tables(parts).sort_by("manifest_row").replace_schema_metadata(None)
