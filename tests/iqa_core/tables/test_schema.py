"""Tests of iqa_core/tables/schema.py: kept columns, and further ones computed from the rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.schema import ExtraColumn, output_schema, schema_with, table_with


@pytest.fixture
def manifest(tmp_path):
    columns = {"uri": ["a"], "mos": [1.5], "extra": ["x"]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    return open_manifest(str(tmp_path / "m.parquet"))


def column(name="double", kind=None, compute=lambda rows: pc.multiply(rows["score"], 2)):
    return ExtraColumn(name, kind or pa.float32(), "twice the score", compute)


@pytest.mark.parametrize("name", ["uri", "content_hash", "descriptor", "embedding", "score_low"])
def test_kept_columns_have_no_name_that_an_output_may_use(name, manifest):
    with pytest.raises(InputError) as no:
        output_schema(manifest, [name])
    assert no.value.on_command_line() == (
        f"--keep {name} must be a column whose name no output uses itself: leave it out, or rename the "
        "manifest's column"
    )


def test_kept_columns_come_last_with_the_manifests_types(manifest):
    schema = output_schema(manifest, ["mos"], pairs=["p"])
    assert schema.names[-3:] == ["width", "height", "mos"]
    assert schema.field("mos").type == pa.float64()


def test_extra_columns_follow_the_kept_ones(manifest):
    schema = schema_with(output_schema(manifest, ["mos"], pairs=["p"]), [column()])
    assert schema.names[-2:] == ["mos", "double"]
    assert schema.field("double").metadata == {b"doc": b"twice the score"}


@pytest.mark.parametrize("name", ["score", "mos", "embedding"])
def test_extra_columns_have_names_of_their_own(name, manifest):
    schema = output_schema(manifest, ["mos"], pairs=["p"])
    with pytest.raises(InputError, match=f"extra column '{name}' has the name of another"):
        schema_with(schema, [column(name)])


def test_extra_columns_may_use_those_before(manifest):
    quadruple = column("quadruple", compute=lambda rows: pc.multiply(rows["double"], 2))
    rows = pa.table({"score": pa.array([0.5, None], pa.float32())})
    table = table_with(rows, [column(), quadruple])
    assert table["double"].to_pylist() == [1.0, None]
    assert table["quadruple"].to_pylist() == [2.0, None]
    assert table.schema.field("double").type == pa.float32()


@pytest.mark.parametrize(
    ("kind", "compute"),
    [
        (pa.int8(), lambda rows: pa.array([1000] * len(rows))),
        (pa.int8(), lambda rows: pa.array([1] * (len(rows) + 1))),
        (pa.float32(), lambda _: [1.0, 2.0]),
        (pa.float32(), lambda _: pa.array(["a", "b"])),
    ],
)
def test_values_that_do_not_fit_are_refused(kind, compute):
    rows = pa.table({"score": pa.array([0.5, None], pa.float32())})
    with pytest.raises(
        InputError, match=rf"extra column 'double' .* must return 2 values .*{kind}"
    ):
        table_with(rows, [column(kind=kind, compute=compute)])
