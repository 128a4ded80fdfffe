"""Kept columns of every type: they have their own type and values in the manifest, or are left out."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.selecting.engine import Engine, is_readable
from iqa_core.selecting.request import Request
from iqa_core.selecting.selection import Selection
from iqa_core.selecting.sources import open_scores
from jobs.cli import main
from tests.iqa_core.selecting.outputs import made_up, write_output

ROOT = Path(__file__).parents[3]
COUNT = 20
DAYS = [datetime.datetime(2020, 1, 1, 2, tzinfo=datetime.UTC)] * COUNT
DAYS = [day + datetime.timedelta(days=i // 4, hours=6 * (i % 4)) for i, day in enumerate(DAYS)]


@pytest.fixture
def write(tmp_path):
    """Write an output in one part with a further column ``kept``; return its folder."""

    def run(column):
        rows = made_up(COUNT).sort_values(["manifest_file", "manifest_row"])
        folder = tmp_path / "scores"
        write_output(folder, rows.assign(status="ok", score=0.5, uri="https://x.org/a"), parts=1)
        table = pq.read_table(folder / "part-0.parquet")
        pq.write_table(table.append_column("kept", column), folder / "part-0.parquet")
        return folder

    return run


def selected(folder, **request):
    with Engine("500MB", threads=1) as engine:
        return pa.Table.from_batches(
            Selection(engine, open_scores([str(folder)]), Request(**request)).rows()
        )


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_selection_by_time_is_the_same_in_every_time_zone(write, tmp_path, zone):
    column = pa.array(DAYS, pa.timestamp("us", "Europe/Berlin"))
    folder = write(column)
    words = ["--scores", str(folder), "--output", "o.parquet", "--where", "kept >= '2020-01-03'"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "select", *words],
        cwd=tmp_path,
        env={**os.environ, "TZ": zone, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "o.parquet")["kept"]
    assert found.type == column.type
    midnight = datetime.datetime(2020, 1, 3, tzinfo=datetime.UTC)
    assert found.to_pylist() == [day for day in column.to_pylist() if day >= midnight]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.timestamp(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "Asia/Tokyo")),
        *(pa.duration(unit) for unit in ("s", "ms", "us")),
        pa.time32("ms"),
        pa.time64("ns"),
        pa.date32(),
        pa.uint64(),
        pa.decimal128(30, 2),
    ],
    ids=str,
)
def test_a_kept_column_has_its_type_and_values_again(write, kind):
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    numbers = pa.array([*range(0, 1000 * (COUNT - 1), 1000), None], width)
    column = numbers.cast(kind)
    found = selected(write(column))["kept"]
    assert found.type == kind
    assert found.to_pylist() == column.to_pylist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a"] * COUNT, pa.large_string()),
        pa.array([b"abcd"] * COUNT, pa.binary(4)),
        pa.array([[1, 2]] * COUNT, pa.list_(pa.int8(), 2)),
        pa.array([[("a", 1)]] * COUNT, pa.map_(pa.string(), pa.int32())),
        pa.array([[DAYS[0]]] * COUNT, pa.list_(pa.timestamp("us", "Asia/Tokyo"))),
    ],
    ids=lambda column: str(column.type),
)
def test_nested_and_other_columns_too(write, column):
    found = selected(write(column))["kept"]
    assert found.type == column.type
    assert found.to_pylist() == column.to_pylist()


def test_durations_compare_with_intervals_and_are_exact(write):
    microseconds = [-1, 0, 86_400_000_001, 400 * 86_400_000_000 + 7, 2**60, *[4_999_999] * 15]
    column = pa.array(microseconds, pa.int64()).cast(pa.duration("us"))
    found = selected(write(column), where=("kept > interval 5 seconds",))["kept"]
    assert found.cast(pa.int64()).to_pylist() == microseconds[2:5]


def test_durations_that_can_not_be_restored_are_left_out(write, tmp_path, capsys):
    folder = write(pa.array([1] * COUNT, pa.duration("ns")))
    output = tmp_path / "o.parquet"
    assert main(["select", "--scores", str(folder), "--output", str(output)]) == 0
    note, *_ = capsys.readouterr().err.splitlines()
    assert "columns of types without SQL" in note
    assert note.endswith("are left out: kept")
    assert "kept" not in pq.read_schema(output).names
    second = pa.duration("s")
    for kind in (pa.list_(second), pa.struct({"a": second}), pa.map_(pa.string(), second)):
        assert not is_readable(kind)
    assert is_readable(second)


def test_times_that_python_lacks(write, tmp_path):
    """After the year 9999, also on the page, which has no kept columns."""
    microseconds = [*range(COUNT - 2), 2**63 - 2, None]
    column = pa.array(microseconds, pa.int64()).cast(pa.timestamp("us"))
    folder = write(column)
    output = tmp_path / "o.parquet"
    words = ["select", "--scores", str(folder), "--output", str(output), "--best", "19"]
    assert main([*words, "--dry-run"]) == 0
    assert main([*words, "--sheet", str(tmp_path / "page.html")]) == 0
    assert pq.read_table(output)["kept"].cast(pa.int64()).to_pylist() == microseconds[:-1]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("kept is not null", range(1, COUNT)),
        ("kept is null", [0]),
        (f"kept = '{uuid.UUID(int=5 << 100)}'", [5]),
        (f"kept in ('{uuid.UUID(int=5 << 100)}', '{uuid.UUID(int=6 << 100)}')", [5, 6]),
        (f"kept > '{uuid.UUID(int=17 << 100)}'", [18, 19]),
        ("kept::varchar like '00000120%'", [18]),
        ("second.kept is not null", range(1, COUNT)),
    ],
)
def test_uuids_are_compared_and_stay_what_they_are(write, tmp_path, where, kept):
    numbers = [None, *(uuid.UUID(int=n << 100) for n in range(1, COUNT))]
    column = pa.array([number and number.bytes for number in numbers], pa.uuid())
    folder = str(write(column))
    output = str(tmp_path / "o.parquet")
    words = ["select", "--scores", folder, f"second={folder}", "--output", output]
    assert main([*words, "--where", where]) == 0
    found = pq.read_table(output)["kept"]
    assert found.type == pa.uuid()
    assert found.to_pylist() == [numbers[n] for n in kept]
    assert not is_readable(pa.list_(pa.uuid()))
    assert not is_readable(pa.struct({"a": pa.uuid()}))
