"""Tests of jobs/manifest.py: folders, and the official releases among them."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from iqa_core.manifest import open_manifest
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
