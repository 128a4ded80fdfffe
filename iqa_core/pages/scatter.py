"""A scatter plot of scores and labels with the fitted logistic curve, as SVG written by hand.

It asks for nothing: no script, no font, no style sheet from elsewhere; it opens in every browser and
in LaTeX's converters. Points are capped, so that a figure of a million images can still be opened.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.evaluation.results import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.evaluation.results import Evaluation

__all__ = ["draw_scatter"]

_POINTS = 4000
_WIDTH, _HEIGHT = 360, 300  # of one plot's area
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 56, 18, 52
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px;fill:#555}"
    ".axis{stroke:#999}.grid{stroke:#e8e8e8}.band{fill:#d95f02;fill-opacity:.22}"
    ".curve{fill:none;stroke:#b34700;stroke-width:2}.point{fill:#2b6cb0;fill-opacity:.35}"
)


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
    plots = "".join(
        f'<g transform="translate({i * step} 0)">'
        f"{_plot(evaluation, name, values, labels, shown, label_name)}</g>"
        for i, (name, values) in enumerate(scores.items())
    )
    width, height = step * len(scores), _TOP + _HEIGHT + _BOTTOM
    told = f"Scores and {label_name} of {len(labels):,} images: {', '.join(scores)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><title>{html.escape(told)}</title><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{plots}</svg>\n'
    )


def _plot(
    evaluation: Evaluation,
    name: str,
    values: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    label_name: str,
) -> str:
    x_ticks, y_ticks = _ticks(values), _ticks(labels)
    x_low, x_high, y_low, y_high = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def across(x: np.ndarray) -> np.ndarray:
        return np.asarray(_LEFT + _WIDTH * (x - x_low) / (x_high - x_low))

    def down(y: np.ndarray) -> np.ndarray:
        inside = np.clip(y, y_low, y_high)
        return np.asarray(_TOP + _HEIGHT * (y_high - inside) / (y_high - y_low))

    bottom = _TOP + _HEIGHT
    parts = [f'<text x="{_LEFT}" y="22">{html.escape(_shorten(name))}</text>']
    told = [
        f"{METRICS[key]} {_number(evaluation.metrics[name][key].value)}"
        for key in ("srcc", "plcc_logistic4")
    ]
    parts.append(f'<text class="small" x="{_LEFT}" y="42">{", ".join(told)}</text>')
    for tick, at in zip(x_ticks, across(x_ticks), strict=True):
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(
            f'<text class="small" x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>'
        )
    for tick, at in zip(y_ticks, down(y_ticks), strict=True):
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}h{_WIDTH}"/>')
        parts.append(
            f'<text class="small" x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    # one path of dots for all points: a tenth of the size of as many circles
    dots = "".join(
        f"M{x:.1f} {y:.1f}m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0"
        for x, y in zip(across(values[shown]), down(labels[shown]), strict=True)
    )
    parts.append(f'<path class="point" d="{dots}"/>')
    curve = evaluation.curves[name]
    if len(curve):
        x = across(curve[:, 0])
        if np.isfinite(curve).all():
            around = _line(x, down(curve[:, 3])) + _line(x[::-1], down(curve[::-1, 2]), "L") + "Z"
            parts.append(f'<path class="band" d="{around}"/>')
        parts.append(f'<path class="curve" d="{_line(x, down(curve[:, 1]))}"/>')
    parts.append(f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}h{_WIDTH}"/>')
    count = f"{len(labels):,} images" + (
        f", {len(shown):,} drawn" if len(shown) < len(labels) else ""
    )
    middle = _TOP + _HEIGHT / 2
    parts.append(
        f'<text class="small" x="{_LEFT + _WIDTH / 2}" y="{bottom + 40}" text-anchor="middle">'
        f"score ({count})</text>"
        f'<text class="small" transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(_shorten(label_name))}</text>"
    )
    return "".join(parts)


def _line(x: np.ndarray, y: np.ndarray, start: str = "M") -> str:
    return start + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _ticks(values: np.ndarray) -> np.ndarray:
    """Return 3 to 8 round numbers, the first at most the least value, the last at least the most."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.round(np.arange(first, last + 1) * step, 12)


def _shorten(text: str) -> str:
    return text if len(text) <= 52 else f"…{text[-51:]}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
