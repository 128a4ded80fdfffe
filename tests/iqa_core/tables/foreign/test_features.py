"""Tests of iqa_core/tables/foreign/features.py and identities.py."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.columns import IDENTITY
from iqa_core.errors import InputError
from iqa_core.tables.foreign.features import ForeignFeatures, unit_features
from iqa_core.tables.rows import RowSet


def unit(count, width=8, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def read(source, columns=(), done=None):
    blocks = [block() for block in source.blocks(columns, done)]
    return pa.concat_tables([b.rows for b in blocks]), np.concatenate([b.features for b in blocks])


def test_two_arrays_over_three_files_of_metadata(tmp_path):
    rows = unit(5000)
    np.save(tmp_path / "e_0.npy", rows[:3100])
    np.save(tmp_path / "e_1.npy", rows[3100:])
    (tmp_path / "meta").mkdir()
    for part, (start, stop) in enumerate([(0, 10), (10, 4000), (4000, 5000)]):
        table = pa.table({"url": [f"u{i}" for i in range(start, stop)], "n": range(start, stop)})
        pq.write_table(table, tmp_path / f"meta/m_{part}.parquet", row_group_size=700)
    options = {"metadata": str(tmp_path / "meta"), "uri_column": "url"}
    source = ForeignFeatures.open(str(tmp_path), "tiny", **options)
    assert source.kept == ["n"]
    table, features = read(source, ["uri", "n", "width"])
    np.testing.assert_array_equal(features, rows)
    assert table["uri"].to_pylist() == [f"u{i}" for i in range(5000)]
    assert table["n"].to_pylist() == list(range(5000))
    assert table["manifest_row"].to_pylist() == [*range(10), *range(3990), *range(1000)]
    assert set(table["width"].to_pylist()) == {None}
    done = RowSet.of(table.select(IDENTITY).slice(0, 4990))
    left, features = read(source, ["n"], done)
    assert left["n"].to_pylist() == list(range(4990, 5000))
    np.testing.assert_array_equal(features, rows[4990:])


def test_metadata_of_other_programs(tmp_path):
    """Whose columns have names that an output uses otherwise, and images among them."""
    columns = {
        "uri": ["https://user:secret@h/a?X-Amz-Signature=1", None],
        "image_id": [7, 8],
        "status": ["success", "failed"],
        "width": pa.array([640, None], pa.int64()),
        "height": ["480", "x"],
        "caption": ["a", "b"],
        "image": [b"...", b"..."],
        "emb": pa.array([[1.0, 0.0], [0.0, 1.0]], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = ForeignFeatures.open(str(tmp_path / "a.parquet"), "tiny")
    assert source.kept == ["caption"]
    names = [field.name for field in source.schema]
    table, features = read(source, [name for name in names if name not in IDENTITY])
    assert table.select(["uri", "image_id", "status", "width", "height"]).to_pylist() == [
        {"uri": "https://h/a", "image_id": 7, "status": "ok", "width": 640, "height": None},
        {"uri": None, "image_id": 8, "status": "ok", "width": None, "height": None},
    ]
    assert features.tolist() == [[1, 0], [0, 1]]


def test_a_model_of_another_width(tmp_path):
    np.save(tmp_path / "a.npy", unit(16))
    np.save(tmp_path / "b.npy", np.ascontiguousarray(unit(16).T))
    for name, message in [
        ("a", "has 8 values in a row, but --model big makes 512: name the model that made them"),
        (
            "b",
            r"has the shape \(8, 16\), and --model big makes 8 values for an image: the array is",
        ),
    ]:
        source = ForeignFeatures.open(str(tmp_path / f"{name}.npy"), "big")
        if name == "a":
            source.check_model("", 8)
        with pytest.raises(InputError) as no:
            source.check_model("", 512 if name == "a" else 8)
        assert re.search(message, no.value.on_command_line())


def test_rows_of_another_length(tmp_path):
    rows = unit(100)
    rows[3], rows[4] = 0, np.nan
    assert unit_features(rows, normalise=False, shown="F") is rows
    with pytest.raises(
        InputError, match=r"F: 98 of 98 rows are not of length 1 \(the median is 7\)"
    ):
        unit_features(rows * 7, normalise=False, shown="F")
    scaled = unit_features(rows * 7, normalise=True, shown="F")
    good = np.delete(np.arange(100), [3, 4])
    np.testing.assert_allclose(scaled[good], rows[good], rtol=1e-5)
    assert np.isnan(scaled[3:5]).all()
    halves = unit_features((rows * 300).astype(np.float16), normalise=True, shown="F")
    np.testing.assert_allclose(np.linalg.norm(halves[:3], axis=1), 1, atol=1e-6)
    np.save(tmp_path / "a.npy", rows * 7)
    with pytest.raises(InputError, match="give normalise if only that was left out"):
        ForeignFeatures.open(str(tmp_path / "a.npy"), "tiny").check_model("", 8)
    ForeignFeatures.open(str(tmp_path / "a.npy"), "tiny", normalise=True).check_model("", 8)


def test_options_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", unit(4))
    place = str(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"features_column x has no effect on .npy files"):
        ForeignFeatures.open(place, "tiny", column="x")
    with pytest.raises(InputError, match="uri_column x is a column of metadata: give that, too"):
        ForeignFeatures.open(place, "tiny", uri_column="x")
    with pytest.raises(
        InputError, match="holds no features: give the output folder of `iqa embed`, or"
    ):
        ForeignFeatures.open(str(tmp_path / "gone"), "tiny")


def test_sizes_of_images_in_capitals(tmp_path):
    """As LAION-400M has them."""
    columns = {"WIDTH": [640, 2**40], "HEIGHT": [480, -1], "emb": [[1.0, 0.0]] * 2}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = ForeignFeatures.open(str(tmp_path / "a.parquet"), "tiny")
    assert source.kept == []
    table, _ = read(source, ["width", "height"])
    assert table.select(["width", "height"]).to_pylist() == [
        {"width": 640, "height": 480},
        {"width": None, "height": None},
    ]


def test_types_that_differ_between_files(tmp_path):
    metadata = tmp_path / "m"
    metadata.mkdir()
    columns = {
        "a": {"n": pa.array([1], pa.int32()), "t": pa.array([1])},
        "b": {"n": [2.5], "t": ["x"]},
    }
    for name, each in columns.items():
        pq.write_table(pa.table(each), metadata / f"{name}.parquet")
    np.save(tmp_path / "f.npy", unit(2))
    source = ForeignFeatures.open(str(tmp_path / "f.npy"), "tiny", metadata=str(metadata))
    table, _ = read(source, ["n"])
    assert table["n"].to_pylist() == [1, 2.5]
    with pytest.raises(InputError, match=r"column 't' of b\.parquet is string, the other files"):
        read(source, ["t"])


def test_files_that_begin_without_features(tmp_path):
    lists = pa.list_(pa.float32())
    for name, values in {"a": [], "b": [[]], "c": [[], None, [0.6, 0.8]]}.items():
        pq.write_table(pa.table({"emb": pa.array(values, lists)}), tmp_path / f"{name}.parquet")
    source = ForeignFeatures.open(str(tmp_path), "tiny")
    assert {vector.shape[1] for vector in source.vectors} == {2}
    source.check_model("", 2)
    assert source.tower_of("", quick_gelu=False)["features"]["width"] == 2
    _, features = read(source)
    np.testing.assert_array_equal(np.isnan(features[:, 0]), [True, True, True, False])
    assert next(source.blocks([]))().features.shape[1] == 2
