"""Tests of iqa_core/releases/agiqa1k.py."""

from __future__ import annotations

import pytest

from tests.iqa_core.releases.layouts import agiqa1k, read


def test_opinions_are_of_0_to_5(tmp_path):
    _, rows = read(agiqa1k, tmp_path)
    assert rows["deepai_0_0_0_0.jpg"]["mos_normalised"] == pytest.approx(3.05 / 5)
