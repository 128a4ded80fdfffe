"""Tests of iqa_core/releases/agiqa3k.py."""

from __future__ import annotations

from tests.iqa_core.releases.layouts import agiqa3k, read


def test_the_opinion_is_that_of_quality(tmp_path):
    found, rows = read(agiqa3k, tmp_path)
    assert rows["sd1.5_lowstep_060.jpg"]["mos"] == 4.2
    assert "mos_align" in found.notes[0]
