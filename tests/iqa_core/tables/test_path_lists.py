"""Tests of iqa_core/tables/path_lists.py: lists as spreadsheets, Windows, Macs and scripts write them."""

from __future__ import annotations

import gzip
import unicodedata
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.tables.listing import find_images, write_manifest
from iqa_core.tables.listing_report import Group, Reason
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.path_lists import suffix_of

NFC, NFD = (unicodedata.normalize(form, "Zoë é.jpg") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path):
    for name in ("images/a.jpg", "images/b c.jpg", "images/100%.jpg", "0001", f"images/{NFD}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(folder, data, name="list.csv"):
    """Return the URIs without the folder, and the counts by reason."""
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    table, report = find_images([str(folder / name)])
    uris = [uri and uri.removeprefix(f"{folder}/") for uri in table["uri"].to_pylist()]
    return uris, {reason: tally.count for reason, tally in report.tallies.items()}


class TestPaths:
    @pytest.mark.parametrize(
        ("written", "meant", "reasons"),
        [
            ("images/a.jpg", "images/a.jpg", []),
            ("./images/a.jpg", "images/a.jpg", []),
            ("images/a.jpg  ", "images/a.jpg", [Reason.BLANKS]),
            ("\xa0images/a.jpg\u200b", "images/a.jpg", [Reason.BLANKS]),
            ("'images/a.jpg'", "images/a.jpg", [Reason.QUOTES]),
            ('"""images/b c.jpg"""', "images/b c.jpg", [Reason.QUOTES]),
            (r"images\b c.jpg", "images/b c.jpg", [Reason.BACKSLASHES]),
            (r".\images\a.jpg", "images/a.jpg", [Reason.BACKSLASHES]),
            ("images/b%20c.jpg", "images/b c.jpg", [Reason.PERCENT]),
            (r"images\b%20c.jpg", "images/b c.jpg", [Reason.BACKSLASHES, Reason.PERCENT]),
            ("images/100%.jpg", "images/100%.jpg", []),
            (f"images/{NFC}", f"images/{NFD}", [Reason.COMPOSITION]),
            (f"images/{NFD}", f"images/{NFD}", []),
            (
                "images/Zo%C3%AB%20%C3%A9.jpg",
                f"images/{NFD}",
                [Reason.PERCENT, Reason.COMPOSITION],
            ),
            (
                f" images\\{NFC} ",
                f"images/{NFD}",
                [Reason.BLANKS, Reason.BACKSLASHES, Reason.COMPOSITION],
            ),
        ],
    )
    def test_what_a_file_is_there_for_is_read_as_it(self, folder, written, meant, reasons):
        uris, counts = read(folder, f"path;mos\n{written};1\n")
        assert uris == [meant]
        assert counts == dict.fromkeys(reasons, 1)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("path,mos\r\nimages\\a.jpg,3\r\n", Reason.BACKSLASHES),
            ("path,mos\nimages/a.jpg ,3\n", Reason.BLANKS),
            ("path,mos\n images/a.jpg,3\n", Reason.BLANKS),
        ],
        ids=["backslash", "blank behind", "blank before"],
    )
    def test_what_comes_of_a_list_can_be_fetched(self, folder, text, reason):
        ((uri,), counts) = read(folder, text)
        assert (uri, counts) == ("images/a.jpg", {reason: 1})
        assert Fetcher(str(folder)).fetch(uri) == b"x"

    def test_a_file_of_the_very_name_goes_first(self, folder):
        names = [r"images\a.jpg", "images/b%20c.jpg", " images/a.jpg", f"images/{NFC}"]
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"x")
        assert read(folder, "path;mos\n" + "".join(f"{name};1\n" for name in names)) == (names, {})

    def test_file_uris(self, folder):
        base = str(folder)
        for uri in (
            f"file://{base}/images/b%20c.jpg",
            f"file://localhost{base}/images/b c.jpg",
            f"file:{base}/images/b c.jpg",
            f"FILE://{base}/images/b c.jpg",
        ):
            assert read(folder, f"path;mos\n{uri};1\n")[0] == ["images/b c.jpg"]

    def test_uris_keep_all_but_blanks_and_quotes(self, folder):
        uris = ["https://x.org/b%20c.jpg?a=%41", "s3://bucket/zo%C3%AB.jpg", "http://x.org/a\\b"]
        text = "path;mos\n" + f" {uris[0]}\t;1\n'{uris[1]}';1\n{uris[2]};1\n"
        assert read(folder, text) == (uris, {Reason.BLANKS: 1, Reason.QUOTES: 1})

    @pytest.mark.parametrize(
        "path",
        [r"C:\Users\me\a.jpg", "d:/photos/a.jpg", r"\\server\share\a.jpg", "file:///C:/a.jpg"],
    )
    def test_drives_of_windows_are_told(self, folder, path):
        uris, counts = read(folder, f"path;mos\n{path};1\nimages/a.jpg;1\n")
        assert uris == [path, "images/a.jpg"]
        assert counts == {Reason.DRIVE: 1}

    def test_backslashes_that_lead_nowhere_are_told(self, folder):
        uris, counts = read(folder, "path;mos\nimages\\x.jpg;1\nimages/a.jpg;1\n0001;1\n")
        assert uris == [r"images\x.jpg", "images/a.jpg", "0001"]
        assert counts == {Reason.BACKSLASHES_MISSING: 1}

    def test_rows_without_a_path_are_told(self, folder):
        uris, counts = read(folder, "path;mos\nimages/a.jpg;1\n;2\nNA;3\n \t;4\nN/A;5\n")
        assert uris == ["images/a.jpg", None, None, None, None]
        assert counts == {Reason.NO_PATH: 4}

    def test_beside_a_list_on_a_store_no_file_is_looked_for(self):
        fs = fsspec.filesystem("memory")
        fs.pipe_file("/lists/l.csv", b"path;mos\n a b.jpg ;1\n/x.jpg;1\ns3://b/c.jpg;1\n")
        table, report = find_images(["memory://lists/l.csv"])
        assert table["uri"].to_pylist() == ["memory://lists/a b.jpg", "/x.jpg", "s3://b/c.jpg"]
        assert list(report.tallies) == [Reason.BLANKS]


class TestFilesThatAreNotThere:
    def hint(self, folder, paths):
        (folder / "list.csv").write_text("path\n" + "".join(f"{path}\n" for path in paths))
        table, report = find_images([str(folder / "list.csv")])
        assert len(table) == len(paths)
        return report.lines(Group.DOUBTFUL)

    def test_most_are_told_with_the_likely_reason(self, folder, monkeypatch):
        said = self.hint(folder, [f"other/{i}.jpg" for i in range(1000)])
        assert said == [
            f"100 files of a sample are not there (100 of 100 in {folder}/list.csv, such as "
            f"{folder}/other/0.jpg; relative paths count from the list's folder, {folder})"
        ]
        (said,) = self.hint(folder, ["images/A.JPG"])
        assert said.endswith("; its folder has a.jpg)")
        (said,) = self.hint(folder, ["images/a"])
        assert said.endswith("; its folder has a.jpg)")
        monkeypatch.chdir(folder / "images")
        (said,) = self.hint(folder, ["a.jpg"])
        assert said.endswith("; it is there relative to the working folder: move the list there)")

    def test_a_few_are_not(self, folder):
        assert self.hint(folder, ["images/a.jpg", "images/b c.jpg", "gone.jpg"]) == []

    def test_nor_what_lies_elsewhere(self, folder):
        assert self.hint(folder, ["https://x.org/1.jpg", "s3://b/2.jpg"]) == []


class TestColumns:
    def test_ids_and_names_stay_text(self, folder):
        text = "image,image_id,mos,code,n\n0001,00012,3,007,5\n0002, 12e4 ,4.5,1,6\n"
        (folder / "list.csv").write_text(text)
        table, _ = find_images([str(folder / "list.csv")])
        assert table.to_pydict() == {
            "uri": [f"{folder}/0001", f"{folder}/0002"],
            "image_id": ["00012", "12e4"],
            "mos": [3.0, 4.5],
            "code": ["007", "1"],
            "n": [5, 6],
        }

    def test_ids_that_are_all_numbers_are_text(self, folder):
        (folder / "list.csv").write_text("path,image_id\na.jpg,1\nb.jpg,2\n")
        assert find_images([str(folder / "list.csv")])[0]["image_id"].to_pylist() == ["1", "2"]

    def test_types_are_those_of_all_lists_together(self, folder):
        (folder / "1.csv").write_text("path,n,mos\na.jpg,1,3\n")
        (folder / "2.tsv").write_text("path\tn\tmos\tby\nb.jpg\t007\t2.5\tme\n")
        (folder / "3.csv").write_bytes(b"path\nc.jpg\n")
        table, _ = find_images(
            [f"{folder}/{name}" for name in ("1.csv", "2.tsv", "3.csv", "images")]
        )
        assert table["n"].to_pylist()[:3] == ["1", "007", None]
        assert table["mos"].to_pylist()[:3] == [3.0, 2.5, None]
        assert table["by"].type == pa.string()
        assert len(table) == 7

    def test_names_of_columns_as_people_write_them(self, folder):
        for name in ("Path", "FILENAME", "File Name", "image_url", "filepath", "Image"):
            assert read(folder, f"id,{name}\n1,images/a.jpg\n")[0] == ["images/a.jpg"]
        with pytest.raises(
            InputError, match=r"has the columns a\.jpg, 3, but none of .* first line"
        ):
            read(folder, "a.jpg,3\nb.jpg,4\n")

    def test_other_columns_of_the_manifests_own_names(self, folder):
        (folder / "list.csv").write_text("photo,uri,image\nimages/a.jpg,x,y\n")
        table, report = find_images([str(folder / "list.csv")], "photo")
        assert table.column_names == ["uri", "list_uri", "list_image"]
        assert len(report.notes) == 2
        write_manifest(table, str(folder / "m.parquet"))
        assert open_manifest(str(folder / "m.parquet")).rows == 1

    def test_how_a_list_was_read_is_noted(self, folder):
        data = "Datei;path\r\nGrüße;images/a.jpg\r\n;\r\n".encode("windows-1252")
        (folder / "list.csv").write_bytes(data)
        _, report = find_images([str(folder / "list.csv")])
        assert [note.partition(": ")[2] for note in report.notes] == [
            "read as windows-1252, as it is not UTF-8: save it as UTF-8 if names are wrong",
            "columns separated by semicolons",
            "1 empty row left out",
        ]


class TestOnePathALine:
    def test_they_are_a_list(self, folder):
        text = "images/a.jpg\r\n\r\nimages\\b c.jpg\r\nhttps://x.org/1\r\n"
        expected = (["images/a.jpg", "images/b c.jpg", "https://x.org/1"], {Reason.BACKSLASHES: 1})
        for data in (text.encode(), text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode()):
            assert read(folder, data, "list.txt") == expected
        assert read(folder, gzip.compress(text.encode()), "list.txt.gz") == expected

    @pytest.mark.parametrize("suffix", ["gz", "xz", "zip"])
    def test_damaged_archives_are_one_line(self, folder, suffix):
        data = {
            "gz": gzip.compress(b"images/a.jpg\n")[:12] + b"\xff" * 20,
            "xz": b"no archive",
            "zip": b"no archive",
        }
        with pytest.raises(InputError, match=rf"list\.txt\.{suffix} can't be read: .") as caught:
            read(folder, data[suffix], f"list.txt.{suffix}")
        assert "\n" not in str(caught.value)

    def test_names_with_commas_need_no_quotation_marks(self, folder):
        (folder / "a, b.jpg").write_bytes(b"x")
        assert read(folder, "a, b.jpg\n", "list.lst") == (["a, b.jpg"], {})

    @pytest.mark.parametrize(
        ("data", "example"),
        [
            (b"Photos of 2023\n\nby me\n", "has the line 'Photos of 2023'"),
            (b"5.5 I01_08_1.bmp\nnone\nnone\n", "has the line 'none'"),
            (b"a.jpg\0b.jpg\0", "holds zero bytes"),
            ("ä.jpg\nb.jpg\n".encode() + b"\xff.jpg\n", "is UTF-8, but not in line 3"),
            (b"", "notes.txt"),
        ],
    )
    def test_other_texts_are_left_out(self, folder, data, example):
        (folder / "notes.txt").write_bytes(data)
        table, report = find_images([str(folder / "images"), str(folder / "notes.txt")])
        assert len(table) == 4
        (line,) = report.lines()
        assert line.startswith("1 files left out: they are no list: give CSV with a line of column")
        assert example in line


class TestOtherKinds:
    def test_patterns_of_lists(self, folder):
        for name in ("l1.csv", "l2.csv"):
            (folder / name).write_text("path\nimages/a.jpg\n")
        assert len(find_images([f"{folder}/l?.csv"])[0]) == 2
        (folder / "l[1].csv").write_text("path\nimages/a.jpg\n")
        assert len(find_images([f"{folder}/l[1].csv"])[0]) == 1
        for name in "ab":
            fsspec.filesystem("memory").pipe_file(f"/many/{name}.csv", b"path\nx.jpg\n")
        assert len(find_images(["memory://many/*.csv"])[0]) == 2

    def test_tables_of_other_programs_get_advice(self, folder):
        for name in ("list.jsonl", "list.json", "list.xlsx"):
            (folder / name).write_bytes(b"{}")
            with pytest.raises(
                InputError, match="they are no list: give CSV with a line of column"
            ):
                find_images([str(folder / name)])
        (folder / "m.parquet").write_bytes(b"PAR1")
        with pytest.raises(InputError, match=r"Parquet files left out: give those .* to manifest"):
            find_images([str(folder / "m.parquet")])

    def test_suffixes_of_lists(self):
        assert suffix_of("a.csv.gz") == ".csv"
        assert suffix_of("a.b.TSV") == ".tsv"
        assert suffix_of("a.tar.gz") == ".gz"
        assert suffix_of("https://x.org/l.csv?sig=a.b") == ".csv"
        assert suffix_of("folder/name") == ""
        assert Path("list.csv").suffix == suffix_of("list.csv")
