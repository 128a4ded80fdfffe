"""The slider below the distribution of scores: a threshold, the share that it keeps, the command.

The script (``threshold.js``) reads the quantiles of the scores from an attribute (JSON).
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from iqa_core.pages.html import render
from iqa_core.pages.svg import axis_of
from iqa_core.pages.text import clean, plural

if TYPE_CHECKING:
    from iqa_core.pages.run.data import Run

__all__ = ["threshold_tool"]

_QUANTILES = 1001


def threshold_tool(run: Run, scores: str) -> Markup:
    """Return the slider; empty if no row has a score.

    Args:
        run: The run.
        scores: Its folder, for the command.
    """
    finite = np.sort(run.score[np.isfinite(run.score)])
    if not len(finite):
        return Markup("")
    places = np.linspace(0, len(finite) - 1, min(_QUANTILES, len(finite))).round().astype(int)
    axis = axis_of(finite)
    document = {
        "low": float(axis[0]),
        "high": float(axis[-1]),
        "values": [round(float(value), 6) for value in finite[places]],
        "exact": len(places) == len(finite) and not run.sampled,
        "scored": run.scored,
        "scores": shlex.quote(clean(scores)),
    }
    data = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    note = ""
    if not document["exact"]:
        note = (
            f"The share is read from {plural(len(places), 'quantile')} and is rounded; the command counts "
            "exactly."
        )
    return render("threshold.html", note=note, data=escape(data))
