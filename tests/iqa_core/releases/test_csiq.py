"""Tests of iqa_core/releases/csiq.py."""

from __future__ import annotations

import pytest

from tests.iqa_core.releases.layouts import csiq, fails, read, write_xlsx


def test_csiq_is_turned_round(tmp_path):
    _, rows = read(csiq, tmp_path)
    assert list(rows) == [
        "awgn/1600.AWGN.1.png",
        "jpeg2000/1600.jpeg2000.5.png",
        "contrast/shroom.contrast.2.png",
        "blur/shroom.BLUR.4.png",
    ]
    row = rows["jpeg2000/1600.jpeg2000.5.png"]
    assert (row["mos"], row["mos_normalised"]) == (0.9, pytest.approx(0.1))
    assert (row["distortion"], row["level"], row["reference"]) == ("jpeg2000", 5, "1600.png")


def test_csiq_without_its_sheet(tmp_path):
    csiq(tmp_path)
    write_xlsx(tmp_path / "csiq.DMOS.xlsx", {"Sheet1": (0, 0, [["image"]])})
    fails("has the sheets Sheet1, but not all_by_image", tmp_path, "csiq")
    write_xlsx(tmp_path / "csiq.DMOS.xlsx", {"all_by_image": (0, 0, [["image", "dmos"]])})
    fails("csiq.DMOS.xlsx has no column 'dst_type', but image, dmos", tmp_path, "csiq")
