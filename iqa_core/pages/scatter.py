"""A scatter plot of scores and labels with the fitted logistic curve, as an SVG file.

It loads nothing from elsewhere: no script, font or style sheet; it opens in every browser and
in LaTeX's converters. Points are capped, so that a figure of a million images can still be opened.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from iqa_core.evaluation.results import METRICS
from iqa_core.pages.html import asset
from iqa_core.pages.svg import Plane, element, ticks_of
from iqa_core.pages.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.evaluation.results import Evaluation

__all__ = ["draw_scatter"]

_POINTS = 4000
_WIDTH, _HEIGHT = 360, 300  # of one plot's area
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 56, 18, 52
_PLOTS = re.compile(r"/\* Plots.*?\*/(.*?)/\* End of plots \*/", re.DOTALL)
_COLOURS = re.compile(r":root\{(.*?)\}", re.DOTALL)


def draw_scatter(
    evaluation: Evaluation,
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    label_name: str = "MOS",
    seed: int = 0,
) -> str:
    """Draw one plot for each score set, side by side.

    Args:
        evaluation: What :func:`iqa_core.evaluation.evaluate.evaluate` made of them.
        scores: Name -> (N,) scores.
        labels: (N,) labels.
        label_name: What the labels' axis is called.
        seed: Chooses the points where there are more than can be drawn.

    Returns:
        An SVG document. The curve is the 4-parameter logistic, the band its bootstrap interval.
    """
    shown = np.arange(len(labels))
    if len(shown) > _POINTS:
        shown = np.sort(np.random.default_rng(seed).choice(shown, _POINTS, replace=False))
    step = _LEFT + _WIDTH + _RIGHT
    plots = [
        element(
            "g",
            _plot(evaluation, name, values, labels, shown, label_name),
            transform=f"translate({i * step + _LEFT} {_TOP})",
        )
        for i, (name, values) in enumerate(scores.items())
    ]
    width, height = step * len(scores), _TOP + _HEIGHT + _BOTTOM
    title = clean(f"Scores and {label_name} of {len(labels):,} images: {', '.join(scores)}")
    document = element(
        "svg",
        element("title", title),
        element("style", Markup(_style())),  # noqa: S704
        element("rect", class_="background", width=width, height=height),
        *plots,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
    )
    return f"{document}\n"


def _style() -> str:
    """Return the theme's rules for plots in its light colours, as converters know no variables."""
    theme = asset("theme.css")
    found = _PLOTS.search(theme), _COLOURS.search(theme)
    if found[0] is None or found[1] is None:
        raise RuntimeError("theme.css has no rules between its comments 'Plots' and 'End of plots'")
    pairs = (line.strip().split(":") for line in found[1][1].split(";") if line.strip())
    colours = {f"var({name})": colour for name, colour in pairs}
    return re.sub(r"var\(--\w+\)", lambda use: colours[use[0]], found[0][1].strip())


def _plot(
    evaluation: Evaluation,
    name: str,
    values: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    label_name: str,
) -> Markup:
    plane = Plane(
        ticks_of(float(values.min()), float(values.max())),
        ticks_of(float(labels.min()), float(labels.max())),
        _WIDTH,
        _HEIGHT,
    )
    agreement = ", ".join(
        f"{METRICS[key]} {_number(evaluation.metrics[name][key].value)}"
        for key in ("srcc", "plcc_logistic4")
    )
    parts = [
        element("text", _end_of(name), class_="heading", x=0, y=22 - _TOP),
        element("text", agreement, x=0, y=42 - _TOP),
        plane.grid(),
        plane.dots(values[shown], labels[shown]),
    ]
    curve = evaluation.curves[name]
    if len(curve):
        if np.isfinite(curve).all():
            parts.append(plane.band(curve[:, 0], curve[:, 2], curve[:, 3]))
        parts.append(plane.curve(curve[:, 0], curve[:, 1]))
    drawn = f", {len(shown):,} drawn" if len(shown) < len(labels) else ""
    parts.append(plane.names(f"score ({len(labels):,} images{drawn})", _end_of(label_name)))
    return Markup("").join(parts)


def _end_of(text: str) -> str:
    """Return the end of a text that is too long, such as a path."""
    text = clean(text)
    return text if len(text) <= 52 else f"…{text[-51:]}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
