"""Tests of iqa_core/releases/clive.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from tests.iqa_core.releases.layouts import clive, fails, read


def test_clive_leaves_its_seven_training_examples_out(tmp_path):
    found, rows = read(clive, tmp_path)
    assert len(rows) == 1162
    assert not any(name.startswith("t") for name in rows)
    assert rows["3.bmp"]["mos"] == pytest.approx(np.linspace(3.42, 92.43, 1169)[7])
    assert found.notes == ("the first 7 images are training examples: left out",)


def test_clive_of_another_length(tmp_path):
    clive(tmp_path)
    savemat(tmp_path / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.ones((1, 1162))})
    fails(
        "names 1,169 images and Data/AllMOS_release.mat rates 1,162, but the release has 1,169",
        tmp_path,
        "clive",
    )
