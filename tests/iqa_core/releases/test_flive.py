"""Tests of iqa_core/releases/flive.py."""

from __future__ import annotations

from iqa_core.releases.read import read_release
from tests.iqa_core.releases.layouts import flive, read


def test_flive(tmp_path):
    found, rows = read(flive, tmp_path)
    assert {name: row["split"] for name, row in rows.items()} == {
        "blur_dataset/motion0044.jpg": "train",
        "voc_emotic_ava/AVA__129332.jpg": "validation",
        "EE371R/rq59.jpg": "train",
        "blur_dataset/motion0220.jpg": "test",
    }
    assert rows["EE371R/rq59.jpg"]["uri"] == str(
        tmp_path / "release" / "database" / "EE371R" / "rq59.jpg"
    )
    assert found.notes == ()


def test_flive_without_its_splits(tmp_path):
    flive(tmp_path)
    (tmp_path / "database" / "labels>640.csv").unlink()
    found = read_release(str(tmp_path), "flive")
    assert found.table["split"].to_pylist() == ["train", "validation", "train", "train"]
    assert found.notes[0].startswith("no official test split")
    (tmp_path / "database" / "labels<=640_padded.csv").unlink()
    found = read_release(str(tmp_path), "flive")
    assert "split" not in found.table.column_names
    assert found.notes[0].startswith("no official test and validation split")
