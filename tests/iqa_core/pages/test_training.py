"""The training's page: everything on it, nothing from outside, nothing that runs."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from iqa_core.pages.training import Moved, TrainingFacts, training_page

VOID = {"meta"}


class Tags(HTMLParser):
    """Checks that what is opened is closed, and collects the names."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def facts():
    look = {"epoch": 0.0, "seconds": 1.0, "learning_rate": 0.1}
    history = [
        {"step": 20 * n, "loss": 2.0 / n if n else float("nan"), "agreement": 0.9 + n / 100, **look}
        for n in range(5)
    ]
    teacher = np.linspace(0.2, 0.8, 3000)
    return TrainingFacts(
        title="Learned <prompts>",
        history=history,
        teacher=teacher,
        student=teacher**2,
        agreements={"srcc ensemble": (1.0, 0.93), "srcc <mos>": (0.5, -0.25)},
        evidence=[("fixed prompts", 0.5, 0.4, 0.6), ("context <1>", 0.7, 0.65, 0.75)],
        measure="known order",
        pairs=[("sharp", 0.9, 0.3, 0.6, 0.25)],
        moved=[Moved("a<b>.png", 2900, 12)],
        word_scale=0.42,
        words=[[("sharp", 0.25), ("<b>", 0.5)]],
        notices=["Workers were lost; training went on from the checkpoint of step 40."],
        facts={"loss": "listmle", "rows": {"train": 1234}, "watch": [], "seed": None, "ok": True},
    )


def test_everything_is_on_the_page(facts):
    page = training_page(facts)
    for text in (
        "Learned &lt;prompts&gt;",
        "srcc &lt;mos&gt;",
        "<b>\N{MINUS SIGN}0.25</b>",
        "Agreement on 3,000 held-out rows",
        "the checkpoint of step 40",
        "&lt;b&gt; <small>0.50</small>",
        "Known order on held-out contents",
        "context &lt;1&gt;",
        "Health of each pair",
        "a&lt;b&gt;.png",
        "2,900",
        "+2,888",
        "from word to word it is usually 0.42",
        "rows: train",
        "1,234",
    ):
        assert text in page
    assert "nan" not in page.lower().replace("\n", "")


def test_the_page_is_whole_and_asks_for_nothing(facts):
    tags = Tags()
    tags.feed(training_page(facts))
    tags.close()
    assert tags.open == []
    assert not {"script", "img", "link", "iframe"} & set(tags.seen)
    assert "http" not in training_page(facts).replace("http-equiv", "")


def test_curves_and_points_lie_within_their_planes(facts):
    page = training_page(facts)
    assert page.count("<polyline") == 3
    assert page.count("<circle") == 2000  # of 3,000
    for points in re.findall(r'points="([^"]+)"', page):
        places = np.array([point.split(",") for point in points.split()], dtype=float)
        assert (places >= 0).all()
        assert (places <= [520, 300]).all()
    y = [float(v) for v in re.findall(r'cy="([-\d.]+)"', page)]
    assert y == sorted(y, reverse=True)  # the student's order is the teacher's
    assert min(y) >= 0
    assert max(y) <= 300


def test_a_page_of_nothing(facts):
    nothing = replace(facts, history=facts.history[:1], words=[], notices=[], facts={})
    page = training_page(replace(nothing, teacher=np.array([np.nan]), student=np.array([0.5])))
    assert page.count("<polyline") == 2  # no loss yet
    assert "<circle" not in page
    constant = replace(facts, teacher=np.full(9, 0.5), student=np.full(9, 0.5))
    assert training_page(constant).count("<circle") == 9
