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

__all__ = ["TrainingFacts", "training_page"]

_MOST_POINTS = 2000
_WIDTH, _HEIGHT = 520, 300  # of a figure's plane, in the units of its drawing
#: The figures of the history: caption and key of its records.
_CURVES = (
    ("Held-out agreement, which chooses the step to keep", "agreement"),
    ("Loss, mean since the last check", "loss"),
    ("Learning rate", "learning_rate"),
)


@dataclass(frozen=True, eq=False)
class TrainingFacts:
    """What a page shows.

    Attributes:
        title: Heading of the page.
        history: Records of :attr:`iqa_core.training.state.State.history`.
        best_step: The step whose context was kept.
        teacher: (N,) scores of the held-out rows by the fixed base prompts.
        student: (N,) scores by the learned prompts.
        agreements: By what is compared with: the teacher's and the student's agreement.
        words: For each context vector its nearest tokens and their distances.
        notices: Sentences to show above everything else, such as that a worker was lost.
        facts: Anything else worth knowing, by name.
    """

    title: str
    history: Sequence[Mapping[str, float]]
    best_step: int
    teacher: np.ndarray
    student: np.ndarray
    agreements: Mapping[str, tuple[float, float]]
    words: Sequence[Sequence[tuple[str, float]]] = ()
    notices: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def training_page(facts: TrainingFacts) -> str:
    """Return the page as HTML."""
    steps = [record["step"] for record in facts.history]
    figures = [
        _curve(caption, steps, [record[key] for record in facts.history], facts.best_step)
        for caption, key in _CURVES
    ]
    figures.append(_scatter(facts.teacher, facts.student))
    return page(
        "training.html",
        title=facts.title,
        notices=facts.notices,
        agreements=_agreements(facts),
        figures=[drawn for drawn in figures if drawn is not None],
        words=_words(facts.words),
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


def _words(words: Sequence[Sequence[tuple[str, float]]]) -> Markup:
    rows = [
        (place, render("words.html", none=NONE, words=[(w, f"{far:.2f}") for w, far in near]))
        for place, near in enumerate(words, start=1)
    ]
    return table("Nearest words of each context vector, with distances", ("Vector", "Words"), rows)


def _curve(
    caption: str, steps: Sequence[float], values: Sequence[float], best_step: int
) -> Markup | None:
    x, y = np.array(steps, dtype=float), np.array(values, dtype=float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(y):
        return None
    across, up = ticks_of(0.0, float(x.max())), ticks_of(float(y.min()), float(y.max()))
    plane = Plane(across, up, _WIDTH, _HEIGHT)
    drawn = plane.polyline(x, y) + plane.marker(best_step, f"kept: step {best_step:,}")
    return figure(
        plane,
        drawn + plane.names("step (dashed: the step kept)"),
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
