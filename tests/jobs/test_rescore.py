"""Tests of jobs/rescore.py on feature caches as they should not be; no Ray is started."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.clip.load import load_towers
from iqa_core.prompts.pairs import load_pairs
from iqa_core.scoring.features import encode_prompts
from iqa_core.tables.feature_cache import EMBEDDING, features_of, score_columns
from jobs.cli import main


def test_a_feature_cache_that_was_changed_is_rescored_without_its_broken_rows(tmp_path, capsys):
    """With a cache as `iqa embed` leaves it, whose file another program has written again."""
    towers = load_towers("tiny")
    good = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    good /= np.linalg.norm(good, axis=1, keepdims=True)
    broken = [np.zeros(128), np.full(128, np.nan), np.full(128, np.inf)]
    features = np.concatenate([good, np.stack(broken)]).astype(np.float16)
    folder = tmp_path / "features"
    (folder / "_run").mkdir(parents=True)
    made_by = {"model": "tiny", "weights": towers.digest}
    (folder / "_run/fingerprint.json").write_text(json.dumps(made_by))
    plan = {"manifest": "m", "files": [{"name": "m", "size": 1, "row_groups": [6]}]}
    (folder / "_run/plan.json").write_text(json.dumps(plan))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 128)
    table = pa.table(
        {
            "manifest_file": ["m"] * 6,
            "manifest_row": pa.array(range(6), pa.int64()),
            "image_id": pa.nulls(6),
            "uri": ["x"] * 6,
            "status": ["ok"] * 6,
            "error": pa.nulls(6, pa.string()),
            "width": pa.array([224] * 6, pa.int32()),
            "height": pa.array([224] * 6, pa.int32()),
            EMBEDDING: flat,
        }
    )
    pq.write_table(table, folder / "part-0.parquet")
    np.testing.assert_array_equal(features_of(table), features.astype(np.float32))
    options = ["--features", str(folder), "--output", str(tmp_path / "o"), "--pairs", "clip-iqa"]
    assert main(["score", *options]) == 3
    assert "3 of 6 rows could not be scored" in capsys.readouterr().out
    [part] = Path(tmp_path / "o").glob("part-*.parquet")
    scored = pq.read_table(part)
    assert scored.column("status").to_pylist() == ["ok"] * 3 + ["model_error"] * 3
    assert scored.column("score").is_null().to_pylist() == [False] * 3 + [True] * 3
    expected = score_columns(features[:3], encode_prompts(towers, load_pairs("clip-iqa")))["score"]
    assert scored.column("score").to_pylist()[:3] == expected.to_pylist()
