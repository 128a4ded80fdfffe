"""A training as one self-contained HTML page: learning curves, teacher against student, the words.

Like the page of `iqa report`, it holds no script and asks for nothing outside of itself.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["TrainingFacts", "training_page"]

_MOST_POINTS = 2000
_WIDTH, _HEIGHT = 520, 300  # of a figure's plane, in the units of its drawing
_NONE = "\N{EN DASH}"


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
    curves = "".join(
        _curve(name, steps, [record[key] for record in facts.history], facts.best_step)
        for name, key in (
            ("Held-out agreement, which chooses the step to keep", "agreement"),
            ("Loss, mean since the last look", "loss"),
            ("Learning rate", "learning_rate"),
        )
    )
    notices = "".join(f'<p class="notice">{_text(line)}</p>' for line in facts.notices)
    return _PAGE.substitute(
        title=_text(facts.title),
        css=_CSS,
        notices=notices,
        agreements=_agreements(facts),
        curves=curves,
        scatter=_scatter(facts.teacher, facts.student),
        words=_words(facts.words),
        facts=_table(
            "Facts", ("", ""), [(_text(k), _text(_value(v))) for k, v in _flat(facts.facts)]
        ),
    )


def _text(value: object) -> str:
    return html.escape(" ".join(str(value).split())[:400])


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else _NONE


def _value(value: object) -> str:
    if value is None or value in ("", (), [], {}):
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in document.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}: ")
        else:
            yield name, value


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table from cells that are HTML already; the first of a row is its heading."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header) if any(header) else ""
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>{body}</table>"


def _agreements(facts: TrainingFacts) -> str:
    rows = [
        (_text(name), _number(teacher), f"<b>{_number(student)}</b>")
        for name, (teacher, student) in facts.agreements.items()
    ]
    caption = f"Agreement on {len(facts.teacher):,} held-out rows"
    return _table(caption, ("With", "Teacher (fixed prompts)", "Student (learned)"), rows)


def _words(words: Sequence[Sequence[tuple[str, float]]]) -> str:
    rows = [
        (
            str(number),
            ", ".join(f"{_text(word) or _NONE} <small>{far:.2f}</small>" for word, far in near),
        )
        for number, near in enumerate(words, start=1)
    ]
    return _table("Nearest words of each context vector, with distances", ("Vector", "Words"), rows)


# Figures ------------------------------------------------------------------------------------------


def _axis(low: float, high: float) -> list[float]:
    """Return 3 to 7 round ticks that hold a range."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _plane(
    name: str, described: str, across: Sequence[float], up: Sequence[float], drawn: str, x_name: str
) -> str:
    """Return a figure with both axes; ``drawn`` is in the plane's units."""
    ticks = [
        f'<line class="rule" x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        for tick, y in zip(up, _down(np.array(up), up), strict=True)
    ]
    ticks += [
        f'<line class="rule" y1="0" y2="{_HEIGHT}" x1="{x:.1f}" x2="{x:.1f}"/>'
        f'<text x="{x:.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{_number(tick)}</text>'
        for tick, x in zip(across, _right(np.array(across), across), strict=True)
    ]
    return (
        f"<figure><figcaption>{_text(name)}</figcaption>"
        f'<svg role="img" viewBox="-60 -10 {_WIDTH + 80} {_HEIGHT + 50}" '
        f'aria-label="{_text(name)}: {_text(described)}">{"".join(ticks)}{drawn}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 34}" text-anchor="middle">{x_name}</text>'
        "</svg></figure>"
    )


def _right(values: np.ndarray, ticks: Sequence[float]) -> np.ndarray:
    scaled: np.ndarray = _WIDTH * (values - ticks[0]) / (ticks[-1] - ticks[0])
    return scaled


def _down(values: np.ndarray, ticks: Sequence[float]) -> np.ndarray:
    scaled: np.ndarray = _HEIGHT * (1 - (values - ticks[0]) / (ticks[-1] - ticks[0]))
    return scaled


def _curve(name: str, steps: Sequence[float], values: Sequence[float], best_step: int) -> str:
    x, y = np.array(steps, dtype=float), np.array(values, dtype=float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(y):
        return ""
    across, up = _axis(0.0, float(x.max())), _axis(float(y.min()), float(y.max()))
    points = " ".join(
        f"{a:.1f},{b:.1f}" for a, b in zip(_right(x, across), _down(y, up), strict=True)
    )
    at = float(_right(np.array([best_step]), across)[0])
    drawn = (
        f'<polyline points="{points}"/>'
        f'<line class="best" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HEIGHT}">'
        f"<title>kept: step {best_step:,}</title></line>"
    )
    described = f"from {_number(y[0])} to {_number(y[-1])} in {int(x[-1]):,} steps"
    return _plane(name, described, across, up, drawn, "step (dashed: the one kept)")


def _scatter(teacher: np.ndarray, student: np.ndarray) -> str:
    both = np.isfinite(teacher) & np.isfinite(student)
    rows = np.flatnonzero(both)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_POINTS)).round().astype(int)]
    x, y = teacher[rows], student[rows]
    if not len(rows):
        return ""
    across, up = _axis(float(x.min()), float(x.max())), _axis(float(y.min()), float(y.max()))
    drawn = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
        for a, b in zip(_right(x, across), _down(y, up), strict=True)
    )
    name = "Score by the learned prompts (up) and by the fixed ones (across)"
    return _plane(name, f"{len(rows):,} held-out rows", across, up, drawn, "fixed prompts")


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>$css</style>
</head>
<body>
<h1>$title</h1>
<p>The teacher is the fixed prompts, the student the learned ones. Agreement (SRCC) is rank correlation;
with the known order of degraded copies it is the share of pairs that are right, less the wrong ones.
Agreement with the teacher itself can't pass 1, and says nothing about people's opinions.</p>
$notices
<section>$agreements</section>
<section class="figures">$curves$scatter</section>
<section>$words</section>
<section>$facts</section>
</body>
</html>
""")

_CSS = """
:root{--page:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#52606f;--line:#d5dbe2;--mark:#2563a8;
--accent:#b3450b;--notice:#fdf0dc}
@media (prefers-color-scheme:dark){:root{--page:#10151b;--card:#19212a;--ink:#e8edf2;--soft:#a5b2c0;
--line:#35414e;--mark:#6fa8e5;--accent:#f0975b;--notice:#3a2d18}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:0 16px;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
h1{font-size:1.75rem;line-height:1.2;margin:28px 0 8px;overflow-wrap:anywhere}
p{max-width:72ch}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px;
margin:0 0 18px;overflow-x:auto}
.notice{background:var(--notice);border-left:4px solid var(--accent);padding:8px 12px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:18px}
figure{margin:0;min-width:0}
figcaption{font-size:.9375rem;font-weight:600;margin-bottom:6px}
svg{display:block;width:100%}
svg text{fill:var(--soft);font-size:12px}
polyline{fill:none;stroke:var(--mark);stroke-width:2}
circle{fill:var(--mark);fill-opacity:.5}
.rule{stroke:var(--line)}
.best{stroke:var(--accent);stroke-width:1.5;stroke-dasharray:4 3}
table{border-collapse:collapse;width:100%;font-size:.875rem}
caption{text-align:left;font-weight:600;padding-bottom:6px}
th,td{text-align:left;vertical-align:top;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}
thead th{color:var(--soft);font-weight:500}
tbody th,th[scope=row]{font-weight:500;width:16rem}
small{color:var(--soft)}
"""
