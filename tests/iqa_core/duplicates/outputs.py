"""Outputs with hashes and features, written by the package's own sink."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.duplicates.content_hash import content_hash
from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema

WIDTH = 8


def write_output(
    folder, contents, features=None, *, name="o", hashes=True, descriptors=None, files=2, failed=()
):
    """Write an output in part files whose rows are shuffled; return its path.

    Args:
        folder: Of manifest and output.
        contents: Each image's bytes, N.
        features: (N, WIDTH); None writes none.
        name: The output's.
        hashes: Whether it has hashes.
        descriptors: (N, 168) int8, 0 where there is none; None writes none.
        files: Files of the manifest.
        failed: Rows that could not be read.
    """
    rows = len(contents)
    (folder / "m").mkdir(exist_ok=True)
    bounds = np.linspace(0, rows, files + 1).astype(int)
    identity = []
    for number in range(files):
        count = int(bounds[number + 1] - bounds[number])
        uris = [f"{place}.jpg" for place in range(bounds[number], bounds[number + 1])]
        ids = [f"id-{uri}" for uri in uris]
        pq.write_table(pa.table({"uri": uris, "image_id": ids}), folder / f"m/{number}.parquet")
        identity += [(f"{number}.parquet", place) for place in range(count)]
    manifest = open_manifest(str(folder / "m"))
    schema = output_schema(
        manifest,
        (),
        embedding=None if features is None else WIDTH,
        hashes=hashes,
        descriptors=descriptors is not None,
    )
    statuses = ["not_found" if place in failed else "ok" for place in range(rows)]
    columns = {
        "manifest_file": [file for file, _ in identity],
        "manifest_row": [row for _, row in identity],
        "image_id": [f"id-{place}.jpg" for place in range(rows)],
        "uri": [f"{place}.jpg" for place in range(rows)],
        "status": statuses,
        "error": [None if status == "ok" else "gone" for status in statuses],
        "width": pa.array([10] * rows, pa.int32()),
        "height": pa.array([10] * rows, pa.int32()),
        "content_hash": [
            content_hash(content) if status == "ok" else None
            for content, status in zip(contents, statuses, strict=True)
        ],
    }
    if features is not None:
        stored = np.array(features, np.float32)
        stored[list(failed)] = np.nan
        columns["embedding"] = feature_column(stored)
    if descriptors is not None:
        rows_of = [row.tolist() if row.any() else None for row in descriptors]
        columns["descriptor"] = pa.array(rows_of, schema.field("descriptor").type)
    table = pa.table({field.name: columns[field.name] for field in schema}).cast(schema)
    order = np.random.default_rng(0).permutation(rows)
    output = Output(str(folder / name), manifest, {"kind": "test"})
    with output.start({}):
        for part in np.array_split(order, 3):
            if len(part):
                output.write(table.take(pa.array(part)))
        output.finish({})
    return str(folder / name)
