"""Tests of iqa_core/releases/kadid10k.py."""

from __future__ import annotations

import pytest

from tests.iqa_core.releases.layouts import fails, kadid10k, read, write_csv


def test_kadid10k_dmos_rises_with_quality(tmp_path):
    found, rows = read(kadid10k, tmp_path)
    row = rows["I81_25_03.png"]
    assert (row["distortion"], row["level"], row["reference"]) == ("contrast change", 3, "I81.png")
    assert rows["I01_01_01.png"]["distortion"] == "gaussian blur"
    assert rows["I01_01_01.png"]["mos_normalised"] == pytest.approx(3.57 / 4)
    assert "rises with quality" in found.notes[0]


def test_kadid10k_of_an_unknown_distortion(tmp_path):
    kadid10k(tmp_path)
    row = [("I01_00_01.png", "I01.png", 3.0, 0.5)]
    write_csv(tmp_path / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], row)
    fails(
        "can't be read as that of KADID-10k .*distortion 00 is none of the 25", tmp_path, "kadid10k"
    )
