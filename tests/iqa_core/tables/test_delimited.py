"""Tests of iqa_core/tables/delimited.py on files as spreadsheets, databases and scripts write them."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.tables.delimited import parse_delimited, read_delimited
from iqa_core.tables.text_types import plain_types

UMLAUTS = "datei,note\r\nGrüße.jpg,1\r\nÄpfel.jpg,2\r\n"
READ = {"datei": ["Grüße.jpg", "Äpfel.jpg"], "note": ["1", "2"]}


def zipped(*texts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for text in texts:
            archive.writestr("a.csv", text)
    return file.getvalue()


def damaged(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


LONG = UMLAUTS + "".join(f"{i}.jpg,{i * i % 97}\r\n" for i in range(1000))
DAMAGED_ZIP, EMPTY_ZIP = damaged(zipped(LONG)), zipped()
DAMAGED_XZ = damaged(lzma.compress(LONG.encode()))
DAMAGED_GZIP = damaged(gzip.compress(LONG.encode()))


def read(data, name="list.csv"):
    return parse_delimited(data if isinstance(data, bytes) else data.encode(), name)


def refused(data, message, name="list.csv"):
    with pytest.raises(InputError, match=message) as caught:
        read(data, name)
    assert "\n" not in str(caught.value)


class TestEncodings:
    @pytest.mark.parametrize(
        ("data", "encoding", "notes"),
        [
            (UMLAUTS.encode(), "utf-8", []),
            (codecs.BOM_UTF8 + UMLAUTS.encode(), "utf-8-sig", []),
            (codecs.BOM_UTF8 * 2 + UMLAUTS.encode(), "utf-8-sig", []),
            (codecs.BOM_UTF16_LE + UMLAUTS.encode("utf-16-le"), "utf-16", ["read as UTF-16"]),
            (codecs.BOM_UTF16_BE + UMLAUTS.encode("utf-16-be"), "utf-16", ["read as UTF-16"]),
            (UMLAUTS.encode("utf-16-le"), "utf-16-le", ["read as UTF-16-LE"]),
            (UMLAUTS.encode("utf-16-be"), "utf-16-be", ["read as UTF-16-BE"]),
            (UMLAUTS.encode("utf-32"), "utf-32", ["read as UTF-32"]),
        ],
    )
    def test_unicode_with_and_without_a_mark(self, data, encoding, notes):
        found = read(data)
        assert (found.table.to_pydict(), found.encoding, found.notes) == (READ, encoding, notes)

    def test_what_windows_and_macs_wrote_before_unicode(self):
        windows = read(UMLAUTS.replace("Äpfel", "5€ „Äpfel").encode("windows-1252"))
        assert windows.table["datei"].to_pylist() == ["Grüße.jpg", "5€ „Äpfel.jpg"]
        assert windows.notes == [
            "read as windows-1252, as it is not UTF-8: save it as UTF-8 if names are wrong"
        ]
        mac = read(UMLAUTS.replace("\r\n", "\r").encode("mac_roman"))
        assert mac.table.to_pydict() == READ
        assert mac.notes[0].startswith("read as mac_roman")

    def test_what_is_in_no_single_encoding_is_refused(self):
        utf_8 = "datei\nGrüße.jpg\nÄpfel.jpg\n".encode()
        refused(
            utf_8 + "Übung.jpg\n".encode("latin-1"),
            r"list\.csv is UTF-8, but not in line 4, which has b'\\xdcbung.jpg': files of two enc",
        )
        refused(
            "datei\n写真.jpg\n".encode("shift_jis"), "neither UTF-8 nor windows-1252: save it as"
        )
        refused(
            codecs.BOM_UTF8 + UMLAUTS.encode("latin-1"), r"is no valid UTF-8 \(invalid start byte\)"
        )
        refused(codecs.BOM_UTF16_LE + "a,b\n".encode("utf-16-le")[:-1], "is no valid UTF-16")
        refused(b"a,b\n1,\x00\n", "holds zero bytes: it is no text file, or damaged")


class TestDelimiters:
    @pytest.mark.parametrize(
        ("text", "delimiter"),
        [
            ("path;mos\na, b.jpg;3,5\n", ";"),
            ("path\tmos\na, b.jpg\t3,5\n", "\t"),
            ("path|mos\na, b.jpg|3,5\n", "|"),
            ('path,mos\n"a, b.jpg","3,5"\n', ","),
            ('"path","mos"\r"a, b.jpg","3,5"\r', ","),
            ('path, mos\n"a, b.jpg", "3,5"\n', ","),
            ("sep=;\r\npath;mos\r\na, b.jpg;3,5\r\n", ";"),
            ("sep=\t\npath\tmos\na, b.jpg\t3,5\n", "\t"),
            ('"sep=;"\npath;mos\na, b.jpg;3,5\n', ";"),
            ("\n\npath;mos\na, b.jpg;3,5\n", ";"),
        ],
    )
    def test_they_are_recognised_by_the_names(self, text, delimiter):
        found = read(text)
        assert found.table.to_pydict() == {"path": ["a, b.jpg"], "mos": ["3,5"]}
        assert found.delimiter == delimiter

    def test_those_inside_of_quotation_marks_do_not_count(self):
        found = read('"one; two; three",mos\nx,1\n')
        assert found.table.to_pydict() == {"one; two; three": ["x"], "mos": ["1"]}
        assert read("one, two;mos\nx;1,5\n").table.to_pydict() == {
            "one, two": ["x"],
            "mos": ["1,5"],
        }

    def test_one_column_has_none(self):
        assert read("path\r\na;b.jpg\r\nc.jpg").table.to_pydict() == {"path": ["a;b.jpg", "c.jpg"]}
        refused("path\na, b.jpg\n", r"line 2 of list\.csv has 2 of 1 cells .* in quotation marks")

    def test_what_differs_from_the_usual_is_noted(self):
        assert read("a;b\n1;2\n").notes == ["columns separated by semicolons"]
        assert read("a\tb\n1\t2\n", "x.tsv").notes == []
        assert read("a,b\n1,2\n", "x.tsv").notes == ["columns separated by commas"]


class TestRows:
    def test_empty_ones_are_left_out_and_counted(self):
        found = read("path,mos,by\na.jpg,1,\n,,\n\n  , ,\xa0\n,2,me\n,,\n\n\n")
        assert found.table.to_pydict() == {
            "path": ["a.jpg", None],
            "mos": ["1", "2"],
            "by": [None, "me"],
        }
        assert found.notes == ["4 empty rows left out"]

    def test_lines_in_quotation_marks_are_one_row(self):
        found = read('path,caption\na.jpg,"one\ntwo, ""three"""\nb.jpg,x\n')
        assert found.table["caption"].to_pylist() == ['one\ntwo, "three"', "x"]

    def test_those_of_other_lengths_are_refused_with_their_line(self):
        head = 'path,caption\na.jpg,"one\ntwo"\n\n'
        refused(
            f"{head}b.jpg,sun, sea\n",
            r"line 5 of list\.csv has 3 of 2 cells \('b.jpg,sun, sea'; the columns are path, caption\),"
            " separated by commas: put cells that contain the delimiter in quotation marks",
        )
        refused(f"{head}b.jpg,\nc.j", r"line 6 of list\.csv has 1 of 2 cells .* is it cut short\?")
        refused(f"sep=;\n{head}b.jpg\n".replace(",", ";"), "line 6 of .* separated by semicolons")
        refused('path,"a\nb"\n"c\nd"\n', r"\('c\\nd'; the columns are path, a\\nb\)")
        assert len(read(f"{head}b.jpg,sun,,\n").table) == 2

    def test_open_quotation_marks_are_refused_with_their_line(self):
        rows = "".join(f"{i}.jpg,{i}\n" for i in range(30_000))
        refused(f'path,mos\na.jpg,1\n"b.jpg,2\n{rows}', "can't be read at line 3: .* not closed")
        refused('path,mos\n"a" b.jpg,1\n', "can't be read at line 2: .* not doubled")

    def test_many(self):
        count = 120_001
        found = read("path,n\n" + "".join(f"{i}.jpg,{i}\n" for i in range(count)))
        assert plain_types(found.table)["n"].to_pylist() == list(range(count))


class TestNames:
    def test_blanks_around_are_left_out(self):
        assert read(" path ,\tmos\na,1\n").table.column_names == ["path", "mos"]

    def test_one_that_is_there_twice_is_refused(self):
        refused("path,mos,path \na,1,b\n", r"list\.csv has the column 'path' 2 times: rename or")

    def test_columns_without_one(self):
        found = read(",path,\n0,a.jpg,\n1,b.jpg,\n")
        assert found.table.to_pydict() == {"column_1": ["0", "1"], "path": ["a.jpg", "b.jpg"]}
        assert found.notes == ["column 1 has no name and is called column_1"]
        assert read("column_2,\na,b\n").table.column_names == ["column_2", "column_2_"]
        refused(",,\n1,2,3\n", "has no line of column names: add it at the top")


class TestFiles:
    def test_compressed_ones(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as file:
            file.writestr("a.csv", UMLAUTS)
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(UMLAUTS.encode()))
        (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(UMLAUTS.encode()))
        for name in ("a.csv.zip", "a.csv.gz", "a.csv.bz2"):
            assert read_delimited(str(tmp_path / name)).table.to_pydict() == READ
        (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(UMLAUTS.encode())[:-9])
        with pytest.raises(InputError, match=r"labels .*cut\.csv\.gz can't be read: "):
            read_delimited(str(tmp_path / "cut.csv.gz"), "--labels")

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("a.csv.zip", b"no archive"),
            ("a.csv.zip", DAMAGED_ZIP),
            ("a.csv.zip", EMPTY_ZIP),
            ("a.csv.xz", b"no archive"),
            ("a.csv.xz", DAMAGED_XZ),
            ("a.csv.gz", DAMAGED_GZIP),
        ],
        ids=["no zip", "damaged zip", "empty zip", "no xz", "damaged xz", "damaged gzip"],
    )
    def test_damaged_ones_are_one_line(self, tmp_path, name, data):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"labels .*{name} can't be read: .") as caught:
            read_delimited(str(tmp_path / name), "--labels")
        assert "\n" not in str(caught.value)

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match=r"labels .*none\.csv does not exist: check the path"):
            read_delimited(f"{tmp_path}/none.csv", "--labels")
        with pytest.raises(InputError, match=r"can't be read: .*directory"):
            read_delimited(str(tmp_path))
        with pytest.raises(InputError, match=r"foo://a/b\.csv can't be read: Protocol not known"):
            read_delimited("foo://a/b.csv")

    def test_other_kinds_say_what_they_are(self):
        parquet = io.BytesIO()
        pq.write_table(pa.table({"a": [1]}), parquet)
        for data, kind in [
            (b"PK\x03\x04\x14\x00\x06\x00", "an Excel workbook or another ZIP archive"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", r"an Excel workbook \(\.xls\)"),
            (gzip.compress(b"a,b\n"), r"compressed by gzip, .* let its name end in \.gz"),
            (parquet.getvalue(), "a Parquet file"),
            (b"\r\n<!DOCTYPE html>\n<html><title>Log in</title>", "an HTML or XML page"),
            (b'[\n {"path": "a.jpg"}\n]', "JSON"),
            (b'{"path": "a.jpg"}\n{"path": "b.jpg"}\n', "JSON"),
        ]:
            refused(data, f"list.csv is {kind}")

    @pytest.mark.parametrize("data", [b"", b"\n\r\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
    def test_empty_ones(self, data):
        refused(data, "is empty: give a file with a line of column names and rows")

    def test_names_alone_are_a_table_without_rows(self):
        assert read("path;mos\r\n").table.to_pydict() == {"path": [], "mos": []}
