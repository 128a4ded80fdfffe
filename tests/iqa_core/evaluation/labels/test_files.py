"""Tests of iqa_core/evaluation/labels/files.py: kinds of files of opinions, and of columns in them."""

from __future__ import annotations

import datetime
import gzip
import importlib.util

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.evaluation.labels.files import read_labels, read_scores


def fails(text, path):
    with pytest.raises(InputError, match=text) as raised:
        read_labels(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "delimiter"),
    [
        ("l.csv", "image_id;mos\na;1,5\n", ";"),
        ("l.tsv", "image_id\tmos\na\t1,5\n", "\t"),
        ("l.TXT", "image_id|mos\na|1,5\n", "|"),
        ("l.tab", "image_id\tmos\na\t1,5\n", "\t"),
        ("l.csv", 'image_id,mos\na,"1,5"\n', ","),
    ],
)
def test_delimited_text(tmp_path, name, text, delimiter):
    (tmp_path / name).write_text(text)
    read = read_labels(str(tmp_path / name))
    assert read.table.to_pylist() == [{"image_id": "a", "mos": "1,5"}]
    assert (read.is_text, read.delimiter) == (True, delimiter)


def test_encodings_and_compression(tmp_path):
    for name, data in {
        "utf16.txt": "image_id\tmos\n\u00e9.png\t1\n".encode("utf-16"),
        "cp1252.csv": "image_id;mos\n\u00e9.png;1\n".encode("cp1252"),
        "bom.csv.gz": gzip.compress("\ufeffimage_id,mos\n\u00e9.png,1\n".encode()),
    }.items():
        (tmp_path / name).write_bytes(data)
        read = read_labels(str(tmp_path / name))
        assert read.table.to_pylist() == [{"image_id": "\u00e9.png", "mos": "1"}]


def write_workbook(path, rows, sheets=1):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for _ in range(sheets - 1):
        book.create_sheet()
    book.save(path)


def test_a_workbook_is_read_as_if_it_had_been_exported(tmp_path):
    path = tmp_path / "l.xlsx"
    rows = [
        [],
        [None, "Image Name", "MOS", "when", "fine"],
        [None, "007", 3, datetime.date(2024, 5, 3), True],
        [],
        [None, 12, 0.1, None, "a,\nb"],
        [None, "c", "n/a", None, None],
    ]
    write_workbook(path, rows, sheets=2)
    read = read_labels(str(path))
    assert read.table.select([0, 1, 3]).to_pylist() == [
        {"Image Name": "007", "MOS": "3", "fine": "True"},
        {"Image Name": "12", "MOS": "0.1", "fine": "a,\nb"},
        {"Image Name": "c", "MOS": "n/a", "fine": None},
    ]
    assert read.table["when"][0].as_py().startswith("2024-05-03")
    assert read.notes == ["only its first sheet, 'Sheet', is read of 2", "1 empty row left out"]
    write_workbook(path, [["mos", "mos"], [1, 2]])
    fails("l.xlsx has the column 'mos' 2 times: rename", path)
    path.write_bytes(b"PK\3\4 and no more")
    fails("l.xlsx can't be read: ", path)
    fails("gone.xlsx can't be read: .*No such file", tmp_path / "gone.xlsx")


def test_a_workbook_without_openpyxl(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "openpyxl" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    fails(
        r"needs openpyxl: pip install .*\[releases\]', or save it as CSV UTF-8", tmp_path / "l.xlsx"
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("l.jsonl", r"convert it, such as by pandas.read_json\(FILE, lines=True\)"),
        ("l.json.gz", r"convert it, such as by pandas.read_json\(FILE\)"),
        ("l.xls", "save it as .xlsx or as CSV UTF-8"),
        ("l.ODS", "save it as .xlsx or as CSV UTF-8"),
        ("l.mat", "`iqa manifest` reads those of known benchmark releases"),
    ],
)
def test_other_kinds_of_files_are_refused_with_advice(tmp_path, name, advice):
    (tmp_path / name).write_text("{}")
    fails(f"is neither CSV, .xlsx nor Parquet: {advice}", tmp_path / name)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["a", "b", None], pa.string_view()),
        pa.array(["a", "b", None], pa.large_string()),
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array([b"a", b"b", None]),
        pa.array([b"a", b"b", None], pa.large_binary()),
        pa.array([b"a", b"b", None], pa.binary_view()),
        pa.array([b"a", b"b", None], pa.binary(1)),
    ],
)
def test_every_type_of_text_in_parquet(tmp_path, ids):
    pq.write_table(pa.table({"image_id": ids}), tmp_path / "l.parquet")
    column = read_labels(str(tmp_path / "l.parquet")).table["image_id"]
    assert (column.type, column.to_pylist()) == (pa.string(), ["a", "b", None])


def test_types_and_nulls_that_differ_between_the_files_of_a_folder(tmp_path):
    for name, table in {
        "a": pa.table({"image_id": ["a"], "mos": pa.array([1], pa.int8()), "split": pa.nulls(1)}),
        "b": pa.table({"image_id": pa.array(["b"], pa.large_string()), "mos": [2.5]}),
        "c": pa.table({"image_id": pa.array(["c"]).dictionary_encode(), "mos": pa.nulls(1)}),
    }.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    table = read_labels(str(tmp_path)).table
    assert table["image_id"].to_pylist() == ["a", "b", "c"]
    assert table["mos"].to_pylist() == [1, 2.5, None]
    pq.write_table(pa.table({"image_id": ["d"], "mos": ["bad"]}), tmp_path / "d.parquet")
    fails("its files have different columns .*: give one of them", tmp_path)


def test_columns_of_images_are_not_read(tmp_path):
    table = {"image": [b"\xff" * 5000] * 3, "key": [b"\xff\xfe"] * 3, "image_id": ["a", "b", "c"]}
    pq.write_table(pa.table(table), tmp_path / "l.parquet")
    read = read_labels(str(tmp_path / "l.parquet")).table
    assert "image" not in read.column_names
    assert read["key"].type == pa.binary()  # what is no text stays as it is


def test_a_column_name_twice_is_refused(tmp_path):
    ids = pa.array(["a"])
    pq.write_table(pa.table([ids, ids], names=["mos", "mos"]), tmp_path / "l.parquet")
    fails(
        "l.parquet: l.parquet has the column 'mos' 2 times: rename or remove",
        tmp_path / "l.parquet",
    )
    pq.write_table(pa.table([ids, ids], names=["mos", "mos"]), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match=r"part-0.parquet has the column 'mos' 2 times"):
        read_scores(str(tmp_path), ["mos"])


def test_scores_have_kept_columns_of_any_type_and_case(tmp_path):
    table = pa.table(
        {
            "manifest_file": pa.array(["m", "m"]).dictionary_encode(),
            "manifest_row": [0, 1],
            "status": ["ok", "ok"],
            "score": pa.array([0.5, 0.25], pa.float32()),
            "Kind": pa.array(["x", "y"], pa.large_string()),
            "other": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "part-0.parquet")
    run = read_scores(str(tmp_path), ["kind", "absent"])
    assert run.table.column_names == ["manifest_file", "manifest_row", "status", "score", "Kind"]
    assert run.table["Kind"].to_pylist() == ["x", "y"]
    np.testing.assert_array_equal(run.table["score"].to_numpy(), [0.5, 0.25])
    assert run.columns[-2:] == ["Kind", "other"]
