"""Tests of iqa_core/releases/tid2013.py."""

from __future__ import annotations

import pytest

from tests.iqa_core.releases.layouts import read, tid2013


def test_tid2013_in_whatever_case(tmp_path):
    _, rows = read(tid2013, tmp_path)
    assert rows["I01_01_1.bmp"]["uri"].endswith("distorted_images/i01_01_1.bmp")
    row = rows["i25_10_3.bmp"]
    assert row["uri"].endswith("distorted_images/i25_10_3.BMP")
    assert (row["distortion"], row["level"], row["reference"]) == ("jpeg", 3, "I25.BMP")
    assert row["mos_normalised"] == pytest.approx(7.21429 / 9)
    assert rows["I01_24_5.bmp"]["distortion"] == "sparse sampling and reconstruction"
