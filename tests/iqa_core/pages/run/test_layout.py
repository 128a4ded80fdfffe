"""Tests of iqa_core/pages/run/layout.py, on part files written here."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.pages.run.layout import choose_images
from tests.iqa_core.pages.run.runs import ok


def test_contact_sheet_takes_each_decile_from_worst_to_best():
    score = np.append(np.linspace(1, 0, 1000), np.nan)
    layout = choose_images(score, 60)
    assert layout.worst == list(range(999, 987, -1))
    assert layout.best == list(range(12))
    assert [(strip.count, len(strip.rows)) for strip in layout.strips] == [(100, 6)] * 10
    assert layout.strips[0].rows[0] == 999
    assert layout.strips[-1].rows[-1] == 0


@pytest.mark.parametrize("thumbnails", [0, 1, 3, 9, 10, 25])
def test_contact_sheet_keeps_to_the_number_of_thumbnails(thumbnails):
    layout = choose_images(np.linspace(0, 1, 100), thumbnails)
    assert sum(len(strip.rows) for strip in layout.strips) <= thumbnails
    assert len(layout.best) == len(layout.worst) <= -(-thumbnails // 5)


def test_images_that_the_pairs_dispute_name_the_pairs(make):
    rows = [ok(i, i / 20, f"{i}.jpg") for i in range(20)]
    rows[19]["scores"] = {"quality": 0.95, "noise": 0.001}
    _, page = make(rows)
    assert "Most disputed between the pairs" in page.text
    assert "quality: above 100% of the images, noise: 5%" in page.text


def test_pairs_that_agree_have_no_disputed_images(make):
    facts, page = make([ok(i, i / 20) for i in range(20)])
    assert "disputed" not in page.text.lower()
    assert facts.shown == 20
