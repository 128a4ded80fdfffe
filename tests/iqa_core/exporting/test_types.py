"""Kept columns of types that a format lacks: left out with a note, or refused by name."""

from __future__ import annotations

import csv
import datetime
import json
import tarfile
import uuid

import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.exporting.formats import FORMATS, export
from iqa_core.exporting.source import FinishedOutput
from iqa_core.fetch.fetcher import Fetcher
from tests.iqa_core.exporting.outputs import table_of, write_images, write_output

COUNT = 12
MAP = pa.map_(pa.string(), pa.int32())


def export_with(folder, name, **kept):
    library = pytest.importorskip(FORMATS[name].library)
    scores = write_output(folder, COUNT, 2, kept=kept)
    target = folder / "target"
    return library, scores, target, lambda: export(FinishedOutput(str(scores)), name, str(target))


def test_hf_leaves_maps_out(tmp_path):
    kept = {
        "meta": pa.array([[("a", n)] for n in range(COUNT)], MAP),
        "metas": pa.array([[[("a", n)]] for n in range(COUNT)], pa.list_(MAP)),
        "took": pa.array(range(COUNT), pa.duration("us")),
    }
    datasets, scores, target, run = export_with(tmp_path, "hf", **kept)
    notes = run()
    assert notes == ["left out, as data sets of Hugging Face lack their types: meta, metas"]
    found = datasets.load_dataset(str(target), cache_dir=str(tmp_path / "cache"))["train"]
    wanted = table_of(scores).drop_columns(["meta", "metas"])
    assert found.data.table.sort_by("manifest_row").to_pylist() == wanted.to_pylist()


def test_csv_has_uuids_as_text_and_what_stores_other_extensions(tmp_path):
    numbers = [None, *(uuid.UUID(int=n << 100) for n in range(1, COUNT))]
    ids = pa.array([number and number.bytes for number in numbers], pa.uuid())
    kept = {
        "id": ids,
        "inner": pa.StructArray.from_arrays([ids], ["id"]),
        "note": pa.array(['{"a": 1}'] * COUNT, pa.string()).cast(pa.json_()),
        "grid": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int8(), (2,)),
            pa.array([[1, 2]] * COUNT, pa.list_(pa.int8(), 2)),
        ),
    }
    scores = write_output(tmp_path, COUNT, 2, kept=kept, embedding=False)
    notes = export(FinishedOutput(str(scores)), "csv", str(tmp_path / "all.csv"))
    assert notes[1:] == ["left out, as CSV has no lists or bytes: grid"]
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["manifest_row"]))
    texts = ["" if number is None else str(number) for number in numbers]
    assert [row["id"] for row in rows] == [row["inner.id"] for row in rows] == texts
    assert rows[0]["note"] == '{"a": 1}'


@pytest.mark.parametrize("name", ["scores.quality", "other.a.b"])
def test_csv_has_no_two_columns_of_one_name(name, tmp_path):
    other = pa.array([{"a": {"b": 1}}] * COUNT)
    kept = {name: pa.array(range(COUNT)), "other": other}
    scores = write_output(tmp_path, COUNT, 2, kept=kept)
    struct = name.partition(".")[0]
    message = (
        f"to csv would have two columns {name}: a kept one, and a field of the column {struct};"
    )
    with pytest.raises(InputError, match=message):
        export(FinishedOutput(str(scores)), "csv", str(tmp_path / "all.csv"))
    assert not list(tmp_path.glob("all.csv*"))


def test_webdataset_has_times_that_python_lacks(tmp_path):
    late = pa.array([0, 2**63 - 1, None, -(2**62)] * (COUNT // 4), pa.timestamp("us"))
    plain = pa.array([[n] for n in [0, 2**63 - 1, 5, 5] * (COUNT // 4)], pa.list_(pa.int64()))
    kept = {
        "late": late,
        "zoned": late.cast(pa.timestamp("us", "Asia/Tokyo")),
        "many": plain.cast(pa.list_(pa.timestamp("us"))),
        "inner": pa.StructArray.from_arrays([late, late.is_null()], ["t", "absent"]),
        "days": pa.array([2**31 - 1] * COUNT, pa.date32()),
    }
    pytest.importorskip(FORMATS["webdataset"].library)
    scores = write_output(tmp_path, COUNT, 2, kept=kept)
    write_images(tmp_path, COUNT)
    target = tmp_path / "set"
    fetcher = Fetcher(str(tmp_path))
    export(FinishedOutput(str(scores)), "webdataset", str(target), fetcher=fetcher)
    with tarfile.open(target / "shard-000000.tar") as shard:
        names = [name for name in shard.getnames() if name.endswith(".json")]
        rows = [json.load(shard.extractfile(name)) for name in names]
    text = f"<value out of range: {2**63 - 1}>"
    assert [rows[n]["late"] for n in (0, 1, 2)] == ["1970-01-01 00:00:00", text, None]
    assert rows[1]["zoned"] == text
    assert rows[1]["many"] == [text]
    assert rows[1]["inner"] == {"t": text, "absent": False}
    assert rows[0]["days"] == f"<value out of range: {2**31 - 1}>"


@pytest.mark.parametrize(
    "kind",
    [
        pa.time64("us"),
        pa.time32("s"),
        pa.duration("ns"),
        pa.list_(pa.duration("us")),
        pa.struct({"a": pa.time64("us")}),
    ],
    ids=str,
)
def test_delta_names_columns_that_it_lacks_a_type_for(tmp_path, kind):
    _, _, target, run = export_with(tmp_path, "delta", odd=pa.nulls(COUNT, kind))
    with pytest.raises(InputError) as no:
        run()
    line = no.value.on_command_line()
    assert line.startswith("--to delta has no type for the kept odd (")
    assert line.endswith("): export --to parquet, or score again without keeping them")
    assert not target.exists()


def test_delta_holds_maps_and_instants_of_any_zone(tmp_path):
    noon = datetime.datetime(2020, 1, 3, 12, tzinfo=datetime.UTC)
    kept = {
        "meta": pa.array([[("a", n)] for n in range(COUNT)], MAP),
        "taken": pa.array([noon] * COUNT, pa.timestamp("ns", "Europe/Berlin")),
    }
    deltalake, _, target, run = export_with(tmp_path, "delta", **kept)
    run()
    found = deltalake.DeltaTable(str(target)).to_pyarrow_table().sort_by("manifest_row")
    assert found["taken"].to_pylist() == [noon] * COUNT
    assert found["meta"].to_pylist() == kept["meta"].to_pylist()
