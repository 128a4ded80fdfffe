"""Tests of iqa_core/releases/koniq10k.py."""

from __future__ import annotations

import pytest

from iqa_core.releases.read import read_release
from tests.iqa_core.releases.layouts import fails, koniq10k, read


def test_koniq10k(tmp_path):
    _, rows = read(koniq10k, tmp_path)
    row = rows["10007357496.jpg"]
    assert row["uri"] == str(tmp_path / "release" / "1024x768" / "10007357496.jpg")
    assert row["mos"] == 68.7285714286
    assert row["mos_normalised"] == pytest.approx((68.7285714286 - 1) / 99)
    assert {name: one["split"] for name, one in rows.items()} == {
        "10004473376.jpg": "train",
        "10007357496.jpg": "test",
        "10043785683.jpg": "validation",
    }


def test_koniq10k_without_its_sets_is_of_the_same_scale_and_says_so(tmp_path):
    koniq10k(tmp_path)
    (tmp_path / "koniq10k_distributions_sets.csv").unlink()
    found = read_release(str(tmp_path), "koniq10k")
    assert found.table.column_names == ["uri", "image_id", "mos", "mos_normalised"]
    assert found.table["mos"].to_pylist() == [77.3836206897, 68.7285714286, 71.2043269231]
    assert "no official split" in found.notes[0]


def test_koniq10k_never_mixes_two_sizes(tmp_path):
    koniq10k(tmp_path)
    (tmp_path / "1024x768" / "10004473376.jpg").unlink()
    fails("lacks 1 of the 3 images of KonIQ-10k", tmp_path, "koniq10k")
