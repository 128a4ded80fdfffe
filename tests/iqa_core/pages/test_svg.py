"""Tests of iqa_core/pages/svg.py: elements, ticks, planes, histograms."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from iqa_core.pages.svg import (
    Plane,
    axis_of,
    bar,
    distribution,
    element,
    histogram,
    range_bar,
    ticks_of,
)


def parsed(markup):
    return ElementTree.fromstring(markup)  # noqa: S314  our own


def test_children_and_attributes_are_text_unless_they_are_markup():
    made = element("g", "<b>", Markup("<i>x</i>"), class_='a"b', text_anchor="end", x=0.25)
    assert made == '<g class="a&#34;b" text-anchor="end" x="0.2">&lt;b&gt;<i>x</i></g>'
    assert element("line", x1=1) == '<line x1="1"/>'


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-3.2, 7.9), (1e-9, 4e-9), (2e6, 2.1e6), (0.3, 0.3), (0, 0), (-5, -5), (0, 1e-14)],
)
def test_ticks_are_round_few_and_hold_the_range(low, high):
    ticks = ticks_of(low, high)
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high)
    assert 3 <= len(ticks) <= 8
    step = ticks[1] - ticks[0]
    np.testing.assert_allclose(np.diff(ticks), step)
    assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.7e18, 1.7e18), (2.0**63, 2.0**63 + 2048), (-1e308, 1e308), (0, 5e-324), (1e-310, 1e-310)],
)
def test_ticks_of_extreme_ranges_are_finite_and_ascend(low, high):
    ticks = ticks_of(low, high)
    assert 3 <= len(ticks) <= 8
    assert np.isfinite(ticks).all()
    assert (np.diff(ticks) > 0).all()
    assert ticks[0] <= max(low, -1e300)
    assert ticks[-1] >= min(high, 1e300)


def test_a_range_of_less_than_the_least_is_widened():
    ticks = axis_of(np.array([0.5, 0.5]))
    assert ticks[-1] - ticks[0] >= 0.01
    assert ticks[0] < 0.5 < ticks[-1]


def test_a_plane_puts_its_corners_at_the_outer_ticks():
    plane = Plane(np.array([0.0, 1.0, 2.0]), np.array([10.0, 20.0]), 200, 100)
    np.testing.assert_allclose(plane.across(np.array([0, 1, 2])), [0, 100, 200])
    np.testing.assert_allclose(plane.down(np.array([10, 15, 20, 99, -9])), [100, 50, 0, 0, 100])
    x, y = np.array([0.0, 1.0]), np.array([10.0, 20.0])
    assert 'points="0.0,100.0 100.0,0.0"' in plane.polyline(x, y)
    assert plane.circles(x, y).count("<circle") == plane.dots(x, y).count("M") == 2
    assert 'd="M0.0 100.0L100.0 0.0"' in plane.curve(x, y)
    assert 'd="M0.0 0.0L100.0 0.0L100.0 100.0L0.0 50.0Z"' in plane.band(
        x, np.array([15, 10]), np.array([20, 20])
    )
    assert plane.grid().count("<text") == 5


def test_a_histogram_holds_every_value_within_its_width():
    values = np.random.default_rng(0).random(500)
    figure = parsed(histogram(values, axis_of(values), "<name>", 40, 190))
    bars = list(figure.iter("rect"))
    assert sum(int(re.search(r": (\d+) image", bar[0].text)[1]) for bar in bars) == 500
    ends = [float(b.get("x")[:-1]) + float(b.get("width")[:-1]) for b in bars]
    assert max(ends) <= 100.01
    assert figure.find("figcaption/b").text == "<name>"


def test_whole_numbers_of_a_short_range_have_a_bar_each():
    figure = parsed(distribution(np.array([1.0, 1.0, 2.0, 4.0]), "level"))
    names = [bar[0].text for bar in figure.iter("rect")]
    assert names == ["1: 2 images", "2: 1 image", "4: 1 image"]


@pytest.mark.parametrize(
    "values",
    [[2.0**63] * 3, [1e16, 1e16 + 2], [-1e308, 1e308], [5e-324], [2.0**50 - 1, 2.0**50 - 30]],
)
def test_every_value_is_in_a_bar_whatever_its_size(values):
    figure = parsed(distribution(np.array(values), "size"))
    bars = [re.search(r": (\d+) image", bar[0].text)[1] for bar in figure.iter("rect")]
    assert sum(map(int, bars)) == len(values)
    for line in figure.iter("line"):
        assert 0 <= float(line.get("x1").rstrip("%")) <= 100


def test_bars():
    drawn = parsed(range_bar(np.linspace(0, 1, 11), 0.5, (0.0, 1.0)))
    rect = drawn.find("rect")
    assert (rect.get("x"), rect.get("width")) == ("10.0%", "80.0%")
    assert drawn.find("circle").get("cx") == "50.0%"
    assert 'width="25.0%"' in bar(0.25)
