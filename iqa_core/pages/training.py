"""A training as one self-contained HTML page: learning curves, teacher against student, the words.

Like the page of `iqa report`, it loads nothing from elsewhere; it has no script.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.pages.html import page, render, table
from iqa_core.pages.svg import Plane, figure, ticks_of
from iqa_core.pages.text import NONE, flatten, significant, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from iqa_core.pages.run.thumbnails import Thumbnail

__all__ = ["Moved", "TrainingFacts", "training_page"]

_MOST_POINTS = 2000
_WIDTH, _HEIGHT = 520, 300  # of a figure's plane, in the units of its drawing
#: The figures of the history: caption and key of its records.
_CURVES = (
    ("Held-out agreement with the teacher", "agreement"),
    ("Loss, mean since the last check", "loss"),
    ("Learning rate", "learning_rate"),
)


@dataclass(frozen=True)
class Moved:
    """An image whose rank moved.

    Attributes:
        name: Of the image.
        before: Its rank by the fixed prompts, 1 is the best.
        after: Its rank by the learned prompts.
        thumbnail: A small image, or None.
    """

    name: str
    before: int
    after: int
    thumbnail: Thumbnail | None = None


@dataclass(frozen=True, eq=False)
class TrainingFacts:
    """What a page shows.

    Attributes:
        title: Heading of the page.
        history: Records of :attr:`iqa_core.training.state.State.history`.
        teacher: (N,) scores of the held-out rows by the fixed base prompts.
        student: (N,) scores by the learned prompts.
        agreements: By what is compared with: the teacher's and the student's agreement.
        evidence: On held-out contents, by whose prompts: value and 95 % interval.
        measure: What ``evidence`` measures.
        pairs: For each pair its name, SRCC of its learned with its fixed scores, agreement with the known
            order before and after, and weight in the image score.
        moved: Images whose rank moved most.
        words: For each context vector its nearest tokens and their distances.
        word_scale: The usual distance of a token to its nearest other one.
        notices: Sentences to show above everything else, such as that a worker was lost.
        facts: Anything else worth knowing, by name.
    """

    title: str
    history: Sequence[Mapping[str, float]]
    teacher: np.ndarray
    student: np.ndarray
    agreements: Mapping[str, tuple[float, float]]
    evidence: Sequence[tuple[str, float, float, float]] = ()
    measure: str = ""
    pairs: Sequence[tuple[str, float, float, float, float]] = ()
    moved: Sequence[Moved] = ()
    words: Sequence[Sequence[tuple[str, float]]] = ()
    word_scale: float = float("nan")
    notices: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def training_page(facts: TrainingFacts) -> str:
    """Return the page as HTML."""
    steps = [record["step"] for record in facts.history]
    figures = [
        _curve(caption, steps, [record[key] for record in facts.history])
        for caption, key in _CURVES
    ]
    figures.append(_scatter(facts.teacher, facts.student))
    return page(
        "training.html",
        title=facts.title,
        images=any(image.thumbnail for image in facts.moved),
        notices=facts.notices,
        agreements=_agreements(facts),
        evidence=_evidence(facts),
        pairs=_pairs(facts),
        moved=_moved(facts),
        figures=[drawn for drawn in figures if drawn is not None],
        words=_words(facts),
        facts=table(
            "Facts", (), [(name, value_of(value)) for name, value in flatten(facts.facts)], "facts"
        ),
    )


def _agreements(facts: TrainingFacts) -> Markup:
    rows = [
        (name, significant(teacher), render("strong.html", value=significant(student)))
        for name, (teacher, student) in facts.agreements.items()
    ]
    caption = f"Agreement on {len(facts.teacher):,} held-out rows"
    return table(caption, ("With", "Teacher (fixed prompts)", "Student (learned)"), rows)


def _evidence(facts: TrainingFacts) -> Markup | str:
    if not facts.evidence:
        return ""
    rows = [
        (name, significant(value), f"{significant(low)} to {significant(high)}")
        for name, value, low, high in facts.evidence
    ]
    caption = f"{facts.measure[:1].upper()}{facts.measure[1:]} on held-out contents"
    return table(caption, ("Prompts", "Value", "95 % interval"), rows)


def _pairs(facts: TrainingFacts) -> Markup | str:
    if not facts.pairs:
        return ""
    header = ("Pair", "SRCC with its own fixed scores", "Known order, fixed", "learned", "Weight")
    rows = [(name, *(significant(value) for value in values)) for name, *values in facts.pairs]
    return table("Health of each pair", header, rows)


def _moved(facts: TrainingFacts) -> Markup | str:
    if not facts.moved:
        return ""
    rows = [
        (
            render("moved.html", image=image),
            f"{image.before:,}",
            f"{image.after:,}",
            f"{image.before - image.after:+,}",
        )
        for image in facts.moved
    ]
    caption = f"Images whose rank among {len(facts.teacher):,} moved most (1 is the best)"
    return table(caption, ("Image", "Fixed prompts", "Learned prompts", "Moved up by"), rows)


def _words(facts: TrainingFacts) -> Markup | str:
    if not facts.words:
        return ""
    rows = [
        (place, render("words.html", none=NONE, words=[(w, f"{far:.2f}") for w, far in near]))
        for place, near in enumerate(facts.words, start=1)
    ]
    caption = "Nearest words of each context vector, with distances"
    if np.isfinite(facts.word_scale):
        caption += (
            f" (from word to word it is usually {facts.word_scale:.2f}: much farther means no word)"
        )
    return table(caption, ("Vector", "Words"), rows)


def _curve(caption: str, steps: Sequence[float], values: Sequence[float]) -> Markup | None:
    x, y = np.array(steps, dtype=float), np.array(values, dtype=float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(y):
        return None
    across, up = ticks_of(0.0, float(x.max())), ticks_of(float(y.min()), float(y.max()))
    plane = Plane(across, up, _WIDTH, _HEIGHT)
    return figure(
        plane,
        plane.polyline(x, y) + plane.names("step"),
        caption=caption,
        described=f"from {significant(y[0])} to {significant(y[-1])} in {int(x[-1]):,} steps",
    )


def _scatter(teacher: np.ndarray, student: np.ndarray) -> Markup | None:
    rows = np.flatnonzero(np.isfinite(teacher) & np.isfinite(student))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_POINTS)).round().astype(int)]
    x, y = teacher[rows], student[rows]
    if not len(rows):
        return None
    across, up = (ticks_of(float(v.min()), float(v.max())) for v in (x, y))
    plane = Plane(across, up, _WIDTH, _HEIGHT)
    return figure(
        plane,
        plane.circles(x, y) + plane.names("fixed prompts", "learned prompts"),
        caption="Scores by the learned prompts and by the fixed prompts",
        described=f"{len(rows):,} held-out rows",
    )
