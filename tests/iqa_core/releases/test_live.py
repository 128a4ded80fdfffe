"""Tests of iqa_core/releases/live.py."""

from __future__ import annotations

import pytest
from scipy.io import savemat

from iqa_core.releases.read import read_release
from tests.iqa_core.releases.layouts import cells, fails, live, read


def test_live_leaves_the_references_out_and_prefers_realigned_opinions(tmp_path):
    found, rows = read(live, tmp_path)
    assert len(rows) == 982 - 197
    row = rows["jpeg/img2.bmp"]  # the 229th: 228 from 0
    assert row["mos"] == pytest.approx(228 / 9 - 2.5)
    assert (row["distortion"], row["reference"]) == ("jpeg", f"ref{228 % 29}.bmp")
    assert "jp2k/img1.bmp" not in rows
    assert found.notes == ("197 undistorted copies of the references are left out",)
    # from -2.39 to 106.5: the scale is widened to what is there
    low, high = 1 / 9 - 2.5, 981 / 9 - 2.5
    assert row["mos_normalised"] == pytest.approx(1 - (228 / 9 - 2.5 - low) / (high - low))
    (tmp_path / "release" / "dmos_realigned.mat").unlink()
    assert set(read_release(str(tmp_path / "release"), "live").table["mos"].to_pylist()) == {0.0}


def test_live_of_another_length(tmp_path):
    live(tmp_path)
    savemat(tmp_path / "refnames_all.mat", {"refnames_all": cells(["a.bmp"] * 779, column=False)})
    fails(
        "dmos_realigned.mat and refnames_all.mat have 779, 982 values, but the release has 982",
        tmp_path,
        "live",
    )
