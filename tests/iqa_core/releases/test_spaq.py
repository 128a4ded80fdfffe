"""Tests of iqa_core/releases/spaq.py."""

from __future__ import annotations

import pytest

from tests.iqa_core.releases.layouts import read, spaq


def test_spaq(tmp_path):
    found, rows = read(spaq, tmp_path)
    assert rows["00001.jpg"]["mos"] == 32.55
    assert rows["00001.jpg"]["mos_normalised"] == pytest.approx(0.3255)
    assert "512" in found.notes[0]
