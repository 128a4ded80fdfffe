"""Finished outputs of made-up scores, written as runs leave them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.tables.part_content import PartContent

PAIRS = pa.struct([("quality", pa.float32()), ("noise", pa.float32())])
SCHEMA = pa.schema(
    [
        pa.field("manifest_file", pa.string(), nullable=False),
        pa.field("manifest_row", pa.int64(), nullable=False),
        ("image_id", pa.string()),
        ("uri", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        ("error", pa.string()),
        ("score", pa.float32()),
        ("scores", PAIRS),
        ("margins", PAIRS),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
FILES = ("a.parquet", "b/c.parquet")


def made_up(rows, seed=0):
    """Return rows with ties, failures, missing and infinite values, in random order."""
    rng = np.random.default_rng(seed)
    half = rows // 2
    # two decimals for a third of the rows: many ties
    score = rng.beta(4, 3, rows)
    score = np.where(rng.random(rows) < 0.3, score.round(2), score).astype(np.float32)
    failed = rng.random(rows) < 0.05
    frame = pd.DataFrame(
        {
            "manifest_file": np.where(np.arange(rows) < half, *FILES),
            "manifest_row": np.where(
                np.arange(rows) < half, np.arange(rows), np.arange(rows) - half
            ),
            "image_id": [f"id-{i}" for i in range(rows)],
            "uri": [f"photos/{i}.jpg" for i in range(rows)],
            "status": np.where(failed, rng.choice(["timeout", "not_found"], rows), "ok"),
            "error": np.where(failed, "gone", None),
            "score": np.where(failed, np.nan, score),
            "noise": np.where(failed, np.nan, rng.random(rows)).astype(np.float32),
            "width": rng.integers(100, 4000, rows),
            "class": rng.choice(["cat", "dog", "bird", None], rows, p=[0.5, 0.3, 0.1, 0.1]),
            "mos": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(50, 15, rows)),
            "key": np.arange(rows),  # as the selection calls its own
            "copies": np.where(rng.random(rows) < 0.6, None, rng.integers(0, rows // 6, rows)),
        }
    )
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def as_table(frame):
    """Return such rows as an output has them; further columns are kept ones."""
    count = len(frame)
    pairs = pa.StructArray.from_arrays(
        [
            pa.array(frame.score, pa.float32(), from_pandas=True),
            pa.array(frame.noise, pa.float32(), from_pandas=True),
        ],
        fields=list(PAIRS),
        mask=pa.array(frame.score.isna()),
    )
    columns = {
        name: pa.array(frame[name], SCHEMA.field(name).type, from_pandas=True)
        for name in SCHEMA.names
        if name in frame
    }
    columns |= {"scores": pairs, "margins": pairs}
    columns["height"] = pa.array(np.full(count, 480), pa.int32())
    own = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    for name in frame:
        if name not in SCHEMA.names and name != "noise":
            kind = pa.int64() if name == "copies" else None
            own = own.append_column(name, pa.array(frame[name], kind, from_pandas=True))
    return own


def write_output(
    folder, frame, parts=5, manifest=None, planned=None, fingerprint="f" * 16, plan_of=None
):
    """Write an output of some part files; its plan has the rows of the frame, or others."""
    (folder / "_run").mkdir(parents=True)
    table = as_table(frame)
    for place in range(parts):
        first, stop = place * len(table) // parts, (place + 1) * len(table) // parts
        name = f"part-{place}.parquet"
        rows = table.slice(first, stop - first)
        content = PartContent.of(name, rows, fingerprint)
        pq.write_table(rows.replace_schema_metadata(content.metadata()), folder / name)
    plan_of = frame if plan_of is None else plan_of
    counts = plan_of.groupby("manifest_file").size()
    files = [{"name": n, "size": 1, "rows": int(c), "digest": "d"} for n, c in counts.items()]
    rows = len(plan_of) if planned is None else planned
    plan = {"manifest": str(manifest or folder.parent / "list"), "rows": rows, "files": files}
    (folder / "_run/plan.json").write_text(json.dumps(plan))
    return str(folder)
