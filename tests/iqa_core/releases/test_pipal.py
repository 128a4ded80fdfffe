"""Tests of iqa_core/releases/pipal.py."""

from __future__ import annotations

from pathlib import Path

from iqa_core.releases.read import read_release
from tests.iqa_core.releases.layouts import pipal, read


def test_pipal(tmp_path):
    _, rows = read(pipal, tmp_path)
    row = rows["A0001_06_26.bmp"]
    assert (row["mos"], row["split"], row["distortion"]) == (1100.5, "train", "06")
    assert row["reference"] == "A0001.bmp"
    assert rows["A0000_06_26.bmp"]["mos_normalised"] == 0
    assert rows["A0000_00_00.bmp"]["mos_normalised"] == 1


def test_pipal_in_its_four_folders(tmp_path):
    pipal(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "Train_Dist").iterdir())):
        (tmp_path / f"Distortion_{i + 1}").mkdir()
        path.rename(tmp_path / f"Distortion_{i + 1}" / path.name)
    found = read_release(str(tmp_path), "pipal").table["uri"].to_pylist()
    assert {Path(one).parent.name for one in found} == {f"Distortion_{i}" for i in range(1, 5)}
