"""Tests of iqa_core/pages/scatter.py: well-formed, self-contained, within its frame, and small."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from iqa_core.evaluation.evaluate import evaluate
from iqa_core.pages.scatter import draw_scatter

SVG = "{http://www.w3.org/2000/svg}"


def draw(count=200, resamples=20, names=("a",), **options):
    rng = np.random.default_rng(0)
    labels = rng.uniform(1, 5, count)
    scores = {name: labels / 5 + 0.05 * rng.normal(size=count) for name in names}
    text = draw_scatter(evaluate(scores, labels, resamples=resamples), scores, labels, **options)
    # our own text, not a stranger's
    return text, ElementTree.fromstring(text)  # noqa: S314


def paths(root, kind):
    return [one.get("d") for one in root.iter(f"{SVG}path") if one.get("class") == kind]


def test_one_plot_for_each_score_set():
    text, root = draw(names=("fixed", "learned"))
    for kind in ("point", "curve", "band"):
        assert len(paths(root, kind)) == 2
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert "fixed" in words
    assert "learned" in words
    assert "score (200 images)" in words
    assert any(word.startswith("SRCC 0.9") for word in words)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert root.find(f"{SVG}title").text == "Scores and MOS of 200 images: fixed, learned"


def test_everything_is_inside_of_the_picture():
    _, root = draw()
    _, _, width, height = map(float, root.get("viewBox").split())
    for kind in ("curve", "band"):
        numbers = np.array(re.findall(r"[\d.]+ [\d.]+", paths(root, kind)[0]))
        points = np.array([one.split() for one in numbers], dtype=float)
        assert (points >= 0).all()
        assert (points[:, 0] <= width).all()
        assert (points[:, 1] <= height).all()


@pytest.mark.slow
def test_a_million_images_stay_a_small_file():
    text, root = draw(count=20_000, resamples=0)
    assert paths(root, "point")[0].count("M") == 4000
    assert "score (20,000 images, 4,000 drawn)" in text
    assert len(text) < 300_000
    assert paths(root, "band") == []  # no resamples, no interval


def test_names_are_text_not_markup():
    text, root = draw(names=("<script>&", "b" * 80), label_name="<b>")
    assert "<script>" not in text
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert "<script>&" in words
    assert "…" + "b" * 51 in words
    assert "<b>" in words


def test_names_are_without_passwords():
    text, root = draw(names=("s3://key:pass@box/run", "https://h/run?sig=abc"), resamples=0)
    assert "pass" not in text
    assert "abc" not in text
    assert "s3://…@box/run, https://h/run?…" in root.find(f"{SVG}title").text


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_constant_values_have_points_and_no_curve(x, y):
    scores, labels = {"a": np.array(x, float)}, np.array(y, float)
    text = draw_scatter(evaluate(scores, labels, resamples=5), scores, labels)
    root = ElementTree.fromstring(text)  # noqa: S314
    assert paths(root, "point")[0].count("M") == 3
    assert paths(root, "curve") == []
    assert "SRCC undefined" in text


def test_the_figure_has_the_colours_of_the_pages_without_their_variables():
    text, root = draw()
    style = root.find(f"{SVG}style").text
    assert "var(" not in style
    for rule in (".band{fill:#", ".curve{stroke:#", ".rule{stroke:#", "svg .background{fill:#fff}"):
        assert rule in style
    assert "Segoe UI" in style
    assert "&#34;" not in text.partition("</style>")[0]  # quotes are the style's own
