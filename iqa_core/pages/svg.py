"""All plots, as SVG: histograms, ranges, planes with curves and points.

An element's children and attributes are text, escaped, unless they are markup themselves. Colours and
lines are the classes of ``theme.css``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from iqa_core.pages.text import number, plural, shorten, significant

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BINS",
    "SMALL_BINS",
    "Plane",
    "axis_of",
    "bar",
    "distribution",
    "element",
    "figure",
    "histogram",
    "range_bar",
    "ticks_of",
]

BINS = 40
SMALL_BINS = 24
_MAX_BARS = 30  # whole numbers of a shorter range have a bar each
_MAX_WHOLE = 2.0**50  # above, halves between whole numbers are rounded away
_LEAST_RANGE, _MAX_VALUE = 1e-290, 1e300  # percentages of such a range neither vanish nor overflow
_MAX_WRITTEN, _MAX_DIGITS = 1e21, 12  # numbers with more digits are written as 1e+21
_TALL = 100  # a plot of fewer pixels has its outer ticks only


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: Its tag.
        children: Text, which is escaped, or markup.
        attributes: By name: ``class_`` for ``class``, other underscores for hyphens; floats with one
            decimal.
    """
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
    )
    inside = "".join(map(str, map(escape, children)))
    return Markup(f"<{name}{text}>{inside}</{name}>" if inside else f"<{name}{text}/>")  # noqa: S704


def _attribute(value: object) -> Markup:
    return escape(f"{value:.1f}" if isinstance(value, float) else value)


def ticks_of(low: float, high: float, least: float = 0.0) -> np.ndarray:
    """Return 3 to 8 round ticks that hold a range, as far as it lies within -1e300 and 1e300.

    Args:
        low: Least value.
        high: Largest value.
        least: A smaller range is widened to ten times this; a range of nothing always is.
    """
    low, high = (min(max(value, -_MAX_VALUE), _MAX_VALUE) for value in (low, high))
    if high - low < max(least, 1e-9 * abs(high), _LEAST_RANGE):
        spread = max(5 * least or 0.5 * (abs(low) or 1.0), _LEAST_RANGE)
        low, high = low - spread, high + spread
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, last + 1) * step


def axis_of(values: np.ndarray, least: float = 1e-3) -> np.ndarray:
    """Return round ticks that hold all values, as :func:`ticks_of`."""
    return ticks_of(float(values.min()), float(values.max()), least)


# Histograms and bars ------------------------------------------------------------------------------


def distribution(values: np.ndarray, name: str) -> Markup:
    """Return a small histogram of any numbers; whole ones of a short range have a bar each."""
    low, high = float(values.min()), float(values.max())
    peak = max(abs(low), abs(high))
    is_short = high - low <= _MAX_BARS and peak <= _MAX_WHOLE
    if is_short and (values == np.round(values)).all():
        axis = np.array([low - 0.5, high + 0.5])
        return histogram(values, axis, name, int(high - low) + 1, 80, whole=True, show=significant)
    axis = axis_of(values, 1e-6 * (min(peak, _MAX_VALUE) or 1.0))
    return histogram(values, axis, name, SMALL_BINS, 80, show=significant)


def histogram(
    values: np.ndarray,
    axis: np.ndarray,
    name: str,
    bins: int,
    height: int,
    *,
    whole: bool = False,
    show: Callable[[float], str] = number,
) -> Markup:
    """Return a figure; widths are percentages, so that text keeps its size on every screen.

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
    mean, median = _mean_and_median(values)
    ticks = [low, high] if height < _TALL else [float(tick) for tick in axis]
    if whole:
        digits, ticks = 0, sorted({low + 0.5, high - 0.5})
    parts = [element("line", class_="rule", x1=0, x2="100%", y1=height, y2=height)]
    parts += [
        element(
            "rect",
            element("title", f"{_bar_name(edges[i], edges[i + 1], digits, whole)}: {images}"),
            x=f"{100 * i / bins:.3f}%",
            width=f"{100 / bins:.3f}%",
            y=height * (1 - count / top),
            height=height * count / top,
        )
        for i, count in enumerate(map(int, counts))
        if count
        for images in [plural(count, "image")]
    ]
    at = f"{100 * (min(max(median, low), high) - low) / (high - low):.2f}%"
    parts.append(element("line", class_="marker", x1=at, x2=at, y1=0, y2=height))
    for tick in ticks:
        at = f"{100 * (tick - low) / (high - low):.2f}%"
        parts.append(element("line", class_="rule", x1=at, x2=at, y1=height, y2=height + 4))
        parts.append(_label(_written(tick, digits), x=at, y=height + 17, text_anchor="middle"))
    parts.append(_label(f"{top:,}", x=-6, y=10, text_anchor="end"))
    parts.append(_label("0", x=-6, y=height, text_anchor="end"))
    if height > _TALL:
        parts.append(_label("score (bars: images)", x="50%", y=height + 36, text_anchor="middle"))
    described = (
        f"{plural(len(values), 'image')}, from {show(float(values.min()))} to "
        f"{show(float(values.max()))}, median {show(median)}"
    )
    drawn = element(
        "svg",
        *parts,
        role="img",
        height=height + (44 if height > _TALL else 22),
        aria_label=f"Histogram of {shorten(name)}: {described}",
    )
    summary = f"mean {show(mean)}, median {show(median)}"
    return element(
        "figure",
        element("figcaption", element("b", shorten(name)), " ", element("span", summary)),
        element("div", drawn, class_="plot"),
        class_="histogram",
    )


def _bar_name(low: float, high: float, digits: int, whole: bool) -> str:
    if whole:
        return number((low + high) / 2, 0)
    return f"{_written(low, digits + 2)} to {_written(high, digits + 2)}"


def _written(value: float, digits: int) -> str:
    """Return a number with a fixed number of decimals, or with 4 digits if it would be too long."""
    is_long = abs(value) >= _MAX_WRITTEN or digits > _MAX_DIGITS
    return significant(value) if is_long else number(value, digits)


def _mean_and_median(values: np.ndarray) -> tuple[float, float]:
    """Return mean and median also where the sum would overflow."""
    scale = 2.0**-64 if np.abs(values).max() > _MAX_VALUE else 1.0
    scaled = values * scale
    return float(scaled.mean()) / scale, float(np.median(scaled)) / scale


def _label(text: str, **attributes: object) -> Markup:
    return element("text", text, **attributes)


def range_bar(values: np.ndarray, mean: float, axis: tuple[float, float]) -> Markup:
    """Return a bar over the middle 80 % of the values, with a dot at their mean."""
    low, high = (float(q) for q in np.quantile(values, (0.1, 0.9)))
    span = (axis[1] - axis[0]) or 1.0
    left, right, at = (100 * (v - axis[0]) / span for v in (low, high, mean))
    described = f"80 % between {number(low)} and {number(high)}"
    return element(
        "svg",
        element("title", f"{described}, mean {number(mean)}"),
        element("line", class_="rule", x1=0, x2="100%", y1=7, y2=7),
        element(
            "rect",
            x=f"{left:.1f}%",
            width=f"{max(right - left, 0.5):.1f}%",
            y=4,
            height=6,
            rx=3,
        ),
        element("circle", cx=f"{at:.1f}%", cy=7, r=4.5),
        class_="range",
        role="img",
        height=14,
        aria_label=described,
    )


def bar(share: float) -> Markup:
    """Return a bar of a share, 0 to 1, of the width; for the eye only."""
    rect = element("rect", width=f"{100 * share:.1f}%", y=3, height=8, rx=2)
    return element("svg", rect, class_="range", height=14, aria_hidden="true")


# Planes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plane:
    """A plot with two axes; what it returns is in its own units, from its upper left corner.

    Attributes:
        x_ticks: Ticks of the horizontal axis, ascending; they bound it.
        y_ticks: Likewise of the vertical axis.
        width: Of the plot's area.
        height: Likewise.
    """

    x_ticks: np.ndarray
    y_ticks: np.ndarray
    width: int
    height: int

    def across(self, x: np.ndarray) -> np.ndarray:
        """Return where values lie on the horizontal axis."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return np.asarray(self.width * (x - low) / (high - low))

    def down(self, y: np.ndarray) -> np.ndarray:
        """Return where values lie on the vertical axis; those outside of it lie on its end."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return np.asarray(self.height * (high - np.clip(y, low, high)) / (high - low))

    def grid(self) -> Markup:
        """Return lines and labels at the ticks, and the axes."""
        parts = []
        for tick, y in zip(self.y_ticks, map(float, self.down(self.y_ticks)), strict=True):
            parts.append(element("line", class_="rule", x1=0, x2=self.width, y1=y, y2=y))
            parts.append(_label(significant(float(tick)), x=-6, y=y + 4, text_anchor="end"))
        for tick, x in zip(self.x_ticks, map(float, self.across(self.x_ticks)), strict=True):
            parts.append(element("line", class_="rule", x1=x, x2=x, y1=0, y2=self.height))
            label = significant(float(tick))
            parts.append(_label(label, x=x, y=self.height + 16, text_anchor="middle"))
        parts.append(element("path", class_="axis", d=f"M0 0V{self.height}h{self.width}"))
        return Markup("").join(parts)

    def names(self, x: str, y: str = "") -> Markup:
        """Return the names of the axes."""
        below = {"x": self.width / 2, "y": self.height + 34, "text_anchor": "middle"}
        drawn = _label(x, **below)
        if y:
            turn = f"translate(-46 {self.height / 2}) rotate(-90)"
            drawn += _label(y, transform=turn, text_anchor="middle")
        return drawn

    def polyline(self, x: np.ndarray, y: np.ndarray) -> Markup:
        """Return a line through (N,) points."""
        pairs = zip(self.across(x), self.down(y), strict=True)
        return element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in pairs))

    def circles(self, x: np.ndarray, y: np.ndarray) -> Markup:
        """Return a circle at each of (N,) points."""
        pairs = zip(map(float, self.across(x)), map(float, self.down(y)), strict=True)
        return Markup("").join(element("circle", cx=a, cy=b, r=3) for a, b in pairs)

    def dots(self, x: np.ndarray, y: np.ndarray) -> Markup:
        """Return (N,) points as one path: a tenth of the size of as many circles."""
        pairs = zip(self.across(x), self.down(y), strict=True)
        drawn = "".join(f"M{a:.1f} {b:.1f}m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0" for a, b in pairs)
        return element("path", class_="point", d=drawn)

    def curve(self, x: np.ndarray, y: np.ndarray) -> Markup:
        """Return a smooth curve through (N,) points."""
        return element("path", class_="curve", d="M" + self._path(x, y))

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> Markup:
        """Return the area between two curves over (N,) values."""
        drawn = f"M{self._path(x, high)}L{self._path(x[::-1], low[::-1])}Z"
        return element("path", class_="band", d=drawn)

    def marker(self, x: float, title: str) -> Markup:
        """Return a dashed vertical line with a title."""
        at = float(self.across(np.array(x)))
        line = {"class_": "marker", "x1": at, "x2": at, "y1": 0, "y2": self.height}
        return element("line", element("title", title), **line)

    def _path(self, x: np.ndarray, y: np.ndarray) -> str:
        pairs = zip(self.across(x), self.down(y), strict=True)
        return "L".join(f"{a:.1f} {b:.1f}" for a, b in pairs)


def figure(plane: Plane, drawn: Markup, *, caption: str, described: str) -> Markup:
    """Return a plane as a figure of a page."""
    svg = element(
        "svg",
        plane.grid(),
        drawn,
        class_="plane",
        role="img",
        viewBox=f"-60 -10 {plane.width + 80} {plane.height + 50}",
        aria_label=f"{caption}: {described}",
    )
    return element("figure", element("figcaption", caption), svg)
