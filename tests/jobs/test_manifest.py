"""Tests of jobs/manifest.py: folders, and the official releases among them."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.tables.listing import METADATA_KEY
from iqa_core.tables.manifest import open_manifest
from jobs.cli import main


@pytest.fixture
def tid(tmp_path):
    """TID2013, with two of its images."""
    folder = tmp_path / "tid2013"
    for name in ("distorted_images/i01_08_1.bmp", "distorted_images/I02_10_5.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "reference_images").mkdir()
    (folder / "reference_images" / "I01.BMP").touch()
    (folder / "mos_with_names.txt").write_text("5.5 I01_08_1.bmp\n1.25 I02_10_5.bmp\n")
    return folder


def manifest(capsys, output, *words):
    status = main(["manifest", *map(str, words), "--output", str(output)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_release_is_recognised(tid, capsys):
    output = tid / "m.parquet"
    status, out, _ = manifest(capsys, output, tid)
    assert status == 0
    assert (
        "2 images of TID2013; columns uri, image_id, mos, mos_normalised, distortion, level" in out
    )
    assert open_manifest(str(output)).rows == 2
    assert pq.read_table(output).to_pylist()[0] == {
        "uri": "distorted_images/i01_08_1.bmp",
        "image_id": "I01_08_1.bmp",
        "mos": 5.5,
        "mos_normalised": pytest.approx(5.5 / 9),
        "distortion": "gaussian blur",
        "level": 1,
        "reference": "I01.BMP",
    }


def test_none_lists_the_images(tid, capsys):
    output = tid.parent / "m.parquet"
    status, out, _ = manifest(capsys, output, tid, "--release", "none")
    assert status == 0
    assert "3 images; columns uri, image_id\n1 files left out" in out


def test_the_folder_above_is_an_ordinary_folder_unless_named(tid, capsys):
    output = tid.parent / "m.parquet"
    assert "3 images; columns" in manifest(capsys, output, tid.parent)[1]
    assert "2 images of TID2013" in manifest(capsys, output, tid.parent, "--release", "tid2013")[1]


def test_notes_name_the_release(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "I01_01_01.png").touch()
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4,1\n")
    _, out, _ = manifest(capsys, tmp_path / "m.parquet", tmp_path)
    assert out.splitlines()[1].startswith(
        "KADID-10k: the column dmos of dmos.csv rises with quality"
    )


def test_wrong_releases(tid, capsys):
    output = tid.parent / "m.parquet"
    for words, text in [
        ((tid, "--release", "tid"), "--release tid is none of auto, none, koniq10k, clive, spaq"),
        ((tid, tid, "--release", "tid2013"), "--release tid2013 reads one folder, but there are 2"),
        ((tid, "--release", "csiq"), "is not CSIQ as it unpacks: it has no csiq.DMOS.xlsx"),
        (("foo://bar",), "foo://bar can't be read: Protocol not known: foo"),
    ]:
        status, out, err = manifest(capsys, output, *words)
        assert (status, out) == (1, "")
        assert text in err
        assert err.count("\n") == 1
    assert not output.exists()


def test_an_output_that_can_not_be_opened_ends_before_the_listing(tmp_path, capsys):
    status, out, err = manifest(capsys, "s4://bucket/m.parquet", tmp_path)
    assert (status, out) == (1, "")
    assert err == ("iqa manifest: --output s4://bucket can't be opened: Protocol not known: s4\n")


def summary(path):
    return json.loads(pq.read_schema(path).metadata[METADATA_KEY])


def test_what_was_left_out_is_said_last_and_kept_in_the_manifest(tmp_path, capsys):
    for name in ("a.jpg", "._a.jpg", "notes.txt", "more.txt"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path;id\r\n a.jpg;007\r\n;\r\n")
    os.close(os.open(os.fsencode(tmp_path) + "/Bär.tar".encode("latin-1"), os.O_CREAT))
    output = tmp_path / "out" / "m.parquet"
    status, out, err = manifest(capsys, output, tmp_path, tmp_path / "list.csv")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{output}: 2 images; columns uri, image_id, id"
    assert lines[1:3] == [
        f"{tmp_path}/list.csv: columns separated by semicolons",
        f"{tmp_path}/list.csv: 1 empty row left out",
    ]
    assert lines[3].startswith("3 files left out: their suffix is not that of an image (")
    assert [line.split(": ")[0] for line in lines[4:]] == [
        "1 hidden files and folders, or an operating system's own, left out",
        "1 shards left out",
        "1 paths read without the blanks around them (' a.jpg')",
        "1 rows have an image that an earlier row has, too",
    ]
    assert lines[5].endswith(r"(B\xe4r.tar)")
    found = summary(output)
    assert found["sources"] == [str(tmp_path), f"{tmp_path}/list.csv"]
    assert found["rows"] == 2
    assert {reason: tally["count"] for reason, tally in found["left_out"].items()} == {
        "suffix": 3,
        "hidden": 1,
        "not_utf8": 1,
    }
    assert found["left_out"]["not_utf8"]["example"] == r"B\xe4r.tar"
    assert found["corrected"] == {"blanks": {"count": 1, "example": "' a.jpg'"}}
    assert found["notes"] == lines[1:3]
    assert open_manifest(str(output)).rows == 2


def test_a_list_that_excel_saved_on_windows(tmp_path, capsys):
    (tmp_path / "list.csv").write_bytes("path,mos\r\ncafé.jpg,3\r\n".encode("cp1252"))
    (tmp_path / "café.jpg").touch()
    output = tmp_path / "m.parquet"
    status, out, err = manifest(capsys, output, tmp_path / "list.csv")
    assert (status, err) == (0, "")
    assert "read as windows-1252" in out
    assert pq.read_table(output).to_pydict() == {"uri": ["café.jpg"], "mos": [3]}


def test_a_file_name_in_latin_1(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.jpg").write_bytes(b"good")
    name = "café.jpg".encode("latin-1")
    with open(os.path.join(os.fsencode(photos), name), "wb") as file:
        file.write(b"odd")
    output = tmp_path / "m.parquet"
    status, out, err = manifest(capsys, output, photos)
    assert (status, err) == (0, "")
    assert "2 images; columns uri, image_id" in out
    rows = pq.read_table(output).to_pylist()
    fetcher = Fetcher(str(tmp_path))
    found = {row["image_id"]: fetcher.fetch(row["uri"]) for row in rows}
    assert found == {
        name.decode("ascii", "backslashreplace"): b"odd",
        "good.jpg": b"good",
    }


def test_the_summary_of_a_release(tid, capsys):
    manifest(capsys, tid / "m.parquet", tid)
    assert summary(tid / "m.parquet") == {
        "sources": [str(tid)],
        "rows": 2,
        "release": "tid2013",
        "notes": [],
    }


def test_secrets_of_sources_are_not_kept(tmp_path, capsys):
    (tmp_path / "a?token=x.jpg").touch()
    output = tmp_path / "m.parquet"
    manifest(capsys, output, f"file://{tmp_path}/a?token=x.jpg")
    assert "token" not in json.dumps(summary(output)["sources"])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_can_not_show_a_name(tmp_path, monkeypatch, encoding):
    (tmp_path / "写真.jpg").touch()
    (tmp_path / "ñ写.txt").touch()
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert main(["manifest", str(tmp_path), "--output", str(tmp_path / "m.parquet")]) == 0
    sys.stdout.flush()
    assert rb"\u5199.txt)" in written.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"path,mos,mos\na.jpg,1,2\n",
            "has the column 'mos' 2 times: rename or remove all but one",
        ),
        (b"path,mos\na.jpg\n", "line 2 of "),
        (b"PK\x03\x04", "is an Excel workbook or another ZIP archive"),
        (b"", "is empty"),
    ],
)
def test_lists_that_can_not_be_read_end_in_one_line(tmp_path, capsys, data, message):
    (tmp_path / "list.csv").write_bytes(data)
    status, out, err = manifest(capsys, tmp_path / "m.parquet", tmp_path / "list.csv")
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_column_of_no_list(tid, tmp_path, capsys):
    output = tmp_path / "m.parquet"
    for words in ([tid], [tid, "--release", "none"], [tid / "mos_with_names.txt"]):
        status, _, err = manifest(capsys, output, *words, "--uri-column", "x")
        assert (status, err.count("\n")) == (1, 1)
        assert "--uri-column x is a column of CSV and TSV files, and none is given" in err
    status, _, err = manifest(capsys, output, tid, "--release", "tid2013", "--uri-column", "x")
    assert status == 1
    assert "--uri-column is of CSV and TSV files, but --release tid2013 has its own lists" in err
    (tmp_path / "l.csv").write_text("x,path\na.png,b.png\n")
    words = [tid / "distorted_images", tmp_path / "l.csv", "--uri-column", "x"]
    assert manifest(capsys, output, *words)[0] == 0
    assert "a.png" in pq.read_table(output)["uri"].to_pylist()


class TestNewImages:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch, capsys):
        """A folder with one image, and its manifest, which names it relative to itself."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/a.jpg").touch()
        assert manifest(capsys, "monday.parquet", "photos")[0] == 0
        assert pq.read_table("monday.parquet").column("uri").to_pylist() == ["photos/a.jpg"]
        return tmp_path

    @pytest.mark.parametrize("earlier", ["monday.parquet", "*day.parquet", "elsewhere", "scored"])
    def test_only_these_are_listed(self, earlier, home, capsys):
        (home / "elsewhere").mkdir()
        shutil.copy("monday.parquet", "elsewhere")  # names elsewhere/photos/a.jpg
        (home / "elsewhere/photos").symlink_to(home / "photos")
        uri = str(home / "photos/a.jpg")
        pq.write_table(pa.table({"uri": [uri]}), "elsewhere/absolute.parquet")
        (home / "scored/_run").mkdir(parents=True)
        plan = {"manifest": "m", "folder": str(home), "files": []}
        (home / "scored/_run/plan.json").write_text(json.dumps(plan))
        pq.write_table(pa.table({"uri": ["photos/a.jpg"]}), "scored/part-1.parquet")
        (home / "photos/b.jpg").touch()
        status, out, _ = manifest(capsys, "tuesday.parquet", "photos", "--without", earlier)
        assert status == 0
        assert "1 of 2 images left out: --without names them" in out
        assert pq.read_table("tuesday.parquet").column("uri").to_pylist() == ["photos/b.jpg"]
        kept = json.loads(pq.read_schema("tuesday.parquet").metadata[METADATA_KEY])
        assert (kept["rows"], kept["known"]) == (1, 1)

    def test_nothing_is_written_where_there_is_none(self, home, capsys):
        status, out, _ = manifest(
            capsys, "tuesday.parquet", "photos", "--without", "monday.parquet"
        )
        assert status == 0
        assert "no new image: tuesday.parquet is not written" in out
        assert not (home / "tuesday.parquet").exists()

    def test_earlier_lists_are_not_replaced(self, home, capsys):
        (home / "photos/b.jpg").touch()
        words = ["monday.parquet", "photos", "--without", "*.parquet"]
        status, _, err = manifest(capsys, *words)
        assert status == 1
        assert "must be another file than the input" in err
        assert "as the input would be lost" in err
        (home / "linked").symlink_to(home)
        words[2:] = ["--without", "linked"]
        status, _, err = manifest(capsys, *words)
        assert status == 1
        assert "as the input would be lost" in err
        assert pq.read_table("monday.parquet").num_rows == 1

    def test_what_cannot_be_read_is_one_line(self, home, capsys):
        pq.write_table(pa.table({"image": [b"x"]}), "inline.parquet")
        (home / "broken.parquet").write_bytes(b"no Parquet")
        for given, text in (
            ("none.parquet", "--without"),
            ("inline.parquet", "--without inline.parquet has no column uri"),
            ("broken.parquet", "broken.parquet"),
        ):
            status, _, err = manifest(capsys, "t.parquet", "photos", "--without", given)
            assert status == 1
            assert text in err

    def test_on_a_store(self, home, capsys):
        fs = fsspec.filesystem("memory")
        store = "memory://new-images"
        fs.pipe("/new-images/a.jpg", b"x")
        assert manifest(capsys, f"{store}/lists/1.parquet", store)[0] == 0
        fs.pipe("/new-images/b.jpg", b"x")
        words = [f"{store}/lists/2.parquet", store, "--without", f"{store}/lists"]
        assert manifest(capsys, *words)[0] == 0
        with fs.open("/new-images/lists/2.parquet") as file:
            assert pq.read_table(file).column("image_id").to_pylist() == ["b.jpg"]

    def test_rows_without_a_path_are_not_known(self, home, capsys):
        pq.write_table(pa.table({"uri": pa.array([None], pa.string())}), "nulls.parquet")
        (home / "list.csv").write_text("uri,kind\nphotos/a.jpg,x\n,y\n")
        words = ["t.parquet", "list.csv", "--without", "nulls.parquet"]
        assert manifest(capsys, *words)[0] == 0
        assert pq.read_table("t.parquet").column("uri").to_pylist() == ["photos/a.jpg", None]
