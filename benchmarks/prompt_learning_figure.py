"""docs/prompt_learning.svg: fixed and learned prompts of each start, a panel for each tower.

`python -m benchmarks.page` writes it from benchmarks/results/prompt_learning.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from iqa_core.pages.svg import element

__all__ = ["FIGURE", "draw"]

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "prompt_learning.svg"

_TOWERS = ("tiny", "turned 0", "turned 1", "turned 2")
_WIDTH, _HEIGHT = 120, 260  # of a panel's lines
_LEFT, _TOP, _STEP = 44, 34, 180
_STYLE = (
    "text{font:12px sans-serif;fill:#333}line{stroke:#2a6f97;stroke-width:1.5}"
    ".below{stroke:#c1121f}.unclear{stroke:#888;stroke-dasharray:4 3}.axis{stroke:#ccc;stroke-width:1}"
)


def draw(raw: dict[str, dict[str, Any]]) -> str:
    """Return the figure: a line a start, from the SRCC of its fixed prompts to that of the learned ones.

    Args:
        raw: ``TOWER | WAY | START`` -> what the benchmark stored; the way is ``default``.
    """
    panels = [_panel(raw, name, _LEFT + _STEP * place) for place, name in enumerate(_TOWERS)]
    width = _LEFT + _STEP * len(_TOWERS)
    height = _TOP + _HEIGHT + 44
    legend = "blue: significantly above fixed; red: significantly below; dashed: neither"
    return (
        element(
            "svg",
            element("title", "SRCC with HaarPSI of fixed and learned prompts"),
            element("style", _STYLE),
            element("rect", width=width, height=height, fill="#fff"),
            *panels,
            element("text", legend, x=_LEFT, y=height - 8),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width} {height}",
            width=width,
            height=height,
        )
        + "\n"
    )


def _panel(raw: dict[str, dict[str, Any]], tower: str, left: float) -> Markup:
    parts = [element("text", tower, x=left, y=_TOP - 16)]
    for tick in (-0.5, 0.0, 0.5, 1.0):
        y = _y(tick)
        parts.append(element("line", x1=left, x2=left + _WIDTH, y1=y, y2=y, class_="axis"))
        if tower == _TOWERS[0]:
            parts.append(
                element("text", f"{tick:.1f}", x=left - 8, y=y + 4, **{"text-anchor": "end"})
            )
    for name, x, anchor in (("fixed", left, "start"), ("learned", left + _WIDTH, "end")):
        parts.append(element("text", name, x=x, y=_TOP + _HEIGHT + 16, **{"text-anchor": anchor}))
    for key, one in raw.items():
        if key.startswith(f"{tower} | default | "):
            kind = "unclear"
            if one["p_holm"] < 0.05:
                kind = "above" if one["gain"] > 0 else "below"
            start = key.rpartition(" | ")[2]
            title = element("title", f"{start}: {one['fixed']:.3f} to {one['learned']:.3f}")
            ends = {"y1": _y(one["fixed"]), "y2": _y(one["learned"])}
            parts.append(element("line", title, x1=left, x2=left + _WIDTH, class_=kind, **ends))
    return Markup("").join(parts)


def _y(srcc: float) -> float:
    """Return the height of a correlation; the axis goes from -1 to 1."""
    return _TOP + _HEIGHT * (1 - srcc) / 2
