"""No row of an output is ``ok`` without a finite score, whichever way it comes about."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.columns import EMBEDDING
from iqa_core.scoring.columns import score_columns
from iqa_core.scoring.features import PromptFeatures
from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from iqa_core.tables.unscored import unscored_as_errors

PROMPTS = PromptFeatures(("a", "b"), np.eye(4, dtype=np.float32).reshape(2, 2, 4), 100.0, "")
GOOD = [0.6, 0.8, 0, 0]
#: Features that no image can have.
BAD = {
    "nan": [math.nan, 0, 0, 1],
    "infinite": [math.inf, 0, 0, 0],
    "both infinities": [math.inf, -math.inf, 0, 0],
    "zeros": [0, 0, 0, 0],
    "tiny": [1e-6, 0, 0, 0],
    "huge": [1e20, 0, 0, 0],
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_without_direction_have_no_score(kind, dtype):
    with np.errstate(over="ignore"):
        features = np.array([GOOD, BAD[kind], GOOD]).astype(dtype)
    columns = score_columns(features, PROMPTS)
    for name in ("score", "scores", "margins"):
        assert columns[name].is_null().to_pylist() == [False, True, False]
    assert columns["score"][0].as_py() == columns["score"][2].as_py()
    table = pa.table({"status": ["ok"] * 3, "error": pa.nulls(3, pa.string())} | columns)
    table = unscored_as_errors(table)
    assert table.column("status").to_pylist() == ["ok", "model_error", "ok"]
    assert [bool(text) for text in table.column("error").to_pylist()] == [False, True, False]


def test_features_rounded_by_half_precision_are_scored():
    features = np.random.default_rng(0).normal(size=(50, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for stored in (features.astype(np.float16), (features.astype(np.float32).view(np.uint32)
                   & 0xFFFF0000).view(np.float32)):  # fmt: skip
        assert score_columns(stored, PROMPTS)["score"].null_count == 0


def test_features_that_float16_can_not_hold_are_not_stored():
    column = feature_column(np.array([GOOD, BAD["huge"], BAD["nan"]], dtype=np.float32))
    assert column.is_null().to_pylist() == [False, True, True]


def rows(score, status="ok", error=None):
    table = {"status": [status], "error": pa.array([error], pa.string())}
    pair = pa.struct([("a", pa.float32())])
    table |= {"score": pa.array([score], pa.float32()), "width": pa.array([7], pa.int32())}
    return pa.table(
        table | {name: pa.array([{"a": score}], pair) for name in ("scores", "margins")}
    )


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None])
def test_a_row_without_a_finite_score_is_a_model_error(score):
    [row] = unscored_as_errors(rows(score)).to_pylist()
    assert (row["status"], row["score"], row["scores"], row["margins"]) == (
        "model_error", None, None, None,
    )  # fmt: skip
    assert "not finite" in row["error"]
    assert row["width"] == 7


def test_other_rows_stay_as_they_are():
    for table in (rows(0.5), rows(None, "timeout", "after 10 s"), rows(0.5).slice(0, 0)):
        assert unscored_as_errors(table).equals(table)
    chunked = pa.concat_tables([rows(0.5), rows(math.nan), rows(0.25)])
    assert unscored_as_errors(chunked).column("score").to_pylist() == [0.5, None, 0.25]


def test_a_row_without_features_is_a_model_error():
    features = np.array([GOOD, BAD["nan"]], dtype=np.float32)
    table = pa.table({"status": ["ok", "ok"], "error": pa.nulls(2, pa.string()),
                      EMBEDDING: feature_column(features)})  # fmt: skip
    assert unscored_as_errors(table).column("status").to_pylist() == ["ok", "model_error"]


def test_what_is_committed_is_checked(tmp_path):
    pq.write_table(pa.table({"uri": ["a", "b"]}), tmp_path / "m.parquet")
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    schema = output_schema(manifest, (), pairs=("a",))
    one = {"manifest_file": "m.parquet", "uri": "a", "status": "ok", "width": 1, "height": 1}
    scores = {"scores": {"a": math.nan}, "margins": {"a": math.nan}}
    table = pa.Table.from_pylist(
        [one | {"manifest_row": 0, "score": math.nan} | scores,
         one | {"manifest_row": 1, "score": 0.5, "scores": {"a": 0.5}, "margins": {"a": 0}}],
        schema,
    )  # fmt: skip
    output = Output(str(tmp_path / "o"), manifest, {})
    with output.start({}):
        output.write(table)
    assert output.committed().statuses == {"ok": 1, "model_error": 1}
    [part] = (tmp_path / "o").glob("part-*.parquet")
    assert pq.read_table(part).column("score").to_pylist() == [None, 0.5]
