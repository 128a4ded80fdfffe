"""Histograms and bars as SVG; widths are percentages, so that text keeps its size on every screen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.pages.run.text import number, plural, text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BINS", "SMALL_BINS", "axis_of", "distribution", "histogram", "range_bar"]

BINS = 40
SMALL_BINS = 24
_MAX_BARS = 30


def axis_of(values: np.ndarray, least: float = 1e-3) -> np.ndarray:
    """Return 3 to 7 round ticks that hold all values; a range below ``least`` is widened."""
    low, high = float(values.min()), float(values.max())
    if high - low < least:
        low, high = low - 5 * least, high + 5 * least
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, last + 1) * step


def distribution(values: np.ndarray, name: str) -> str:
    """Return a small histogram of any numbers; whole ones of a short range have a bar each."""
    low, high = float(values.min()), float(values.max())
    if high - low <= _MAX_BARS and (values == np.round(values)).all():
        axis = np.array([low - 0.5, high + 0.5])
        return histogram(values, axis, name, int(high - low) + 1, 80, whole=True, show=_short)
    axis = axis_of(values, 1e-6 * (max(abs(low), abs(high)) or 1.0))
    return histogram(values, axis, name, SMALL_BINS, 80, show=_short)


def _short(value: float) -> str:
    return f"{value:,.4g}".replace("-", "\N{MINUS SIGN}")


def histogram(
    values: np.ndarray,
    axis: np.ndarray,
    name: str,
    bins: int,
    height: int,
    *,
    whole: bool = False,
    show: Callable[[float], str] = number,
) -> str:
    """Return a figure.

    Args:
        values: (N,) finite numbers, at least one.
        axis: Ticks, ascending; the first and the last bound the plot.
        name: What is counted.
        bins: Number of bars.
        height: Of the plot in pixels; below 100 it has the outer ticks only.
        whole: The values are whole numbers, each with its own bar.
        show: How to write mean, median and range.
    """
    low, high = float(axis[0]), float(axis[-1])
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    top = int(counts.max())
    step = float(axis[1] - axis[0])
    digits = max(0 if step >= 1 else 1, -math.floor(math.log10(step) + 1e-9))
    median = float(np.median(values))
    ticks = [low, high] if height < 100 else [float(tick) for tick in axis]
    if whole:
        digits, ticks = 0, sorted({low + 0.5, high - 0.5})
    parts = [f'<line class="rule" x1="0" x2="100%" y1="{height}" y2="{height}"/>']
    parts += [
        f'<rect x="{100 * i / bins:.3f}%" width="{100 / bins:.3f}%" '
        f'y="{height * (1 - count / top):.1f}" height="{height * count / top:.1f}">'
        f"<title>{_bar_name(edges[i], edges[i + 1], digits, whole)}: "
        f"{plural(int(count), 'image')}</title></rect>"
        for i, count in enumerate(counts)
        if count
    ]
    at = 100 * (median - low) / (high - low)
    parts.append(f'<line class="median" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="{height}"/>')
    parts += [_tick(tick, low, high, digits, height) for tick in ticks]
    parts.append(f'<text x="-6" y="10" text-anchor="end">{top:,}</text>')
    parts.append(f'<text x="-6" y="{height}" text-anchor="end">0</text>')
    if height > 100:
        parts.append(
            f'<text x="50%" y="{height + 36}" text-anchor="middle">score (bars: images)</text>'
        )
    described = (
        f"{plural(len(values), 'image')}, from {show(float(values.min()))} to "
        f"{show(float(values.max()))}, median {show(median)}"
    )
    return (
        f'<figure class="histogram"><figcaption><b>{text(name)}</b> '
        f"<span>mean {show(float(values.mean()))}, median {show(median)}</span></figcaption>"
        f'<div class="plot"><svg role="img" height="{height + (44 if height > 100 else 22)}" '
        f'aria-label="Histogram of {text(name)}: {described}">{"".join(parts)}</svg></div>'
        "</figure>"
    )


def _bar_name(low: float, high: float, digits: int, whole: bool) -> str:
    if whole:
        return number((low + high) / 2, 0)
    return f"{number(low, digits + 2)} to {number(high, digits + 2)}"


def _tick(value: float, low: float, high: float, digits: int, height: int) -> str:
    at = 100 * (value - low) / (high - low)
    return (
        f'<line class="rule" x1="{at:.2f}%" x2="{at:.2f}%" y1="{height}" y2="{height + 4}"/>'
        f'<text x="{at:.2f}%" y="{height + 17}" text-anchor="middle">'
        f"{number(value, digits)}</text>"
    )


def range_bar(values: np.ndarray, mean: float, axis: tuple[float, float]) -> str:
    """Return a bar over the middle 80 % of the values, with a dot at their mean."""
    low, high = (float(q) for q in np.quantile(values, (0.1, 0.9)))
    span = (axis[1] - axis[0]) or 1.0
    left, right, at = (100 * (v - axis[0]) / span for v in (low, high, mean))
    return (
        '<svg class="range" role="img" height="14" '
        f'aria-label="80 % between {number(low)} and {number(high)}">'
        f"<title>80 % between {number(low)} and {number(high)}, mean {number(mean)}</title>"
        '<line class="rule" x1="0" x2="100%" y1="7" y2="7"/>'
        f'<rect x="{left:.1f}%" width="{max(right - left, 0.5):.1f}%" y="4" height="6" rx="3"/>'
        f'<circle cx="{at:.1f}%" cy="7" r="4.5"/></svg>'
    )
