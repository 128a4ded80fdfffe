"""The section of the columns that the run kept of its manifest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from iqa_core.evaluation.correlations import srcc
from iqa_core.pages.html import render, table
from iqa_core.pages.run.data import floats, is_number
from iqa_core.pages.svg import distribution, range_bar
from iqa_core.pages.text import NONE, number, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iqa_core.pages.run.data import Run

__all__ = ["columns"]

_MAX_GROUPS = 30
_MAX_LEVELS = 8
_DISTORTION = re.compile("distort|degrad|corrupt", re.IGNORECASE)
_LEVEL = re.compile("level|severity|strength", re.IGNORECASE)


def columns(run: Run) -> Markup:
    """Return each kept column's distribution and its relation to the score."""
    if not run.kept or not np.isfinite(run.score).any():
        return Markup("")
    numbers = {n: floats(c) for n, c in run.kept.items() if is_number(c.type)}
    texts = {n: _groups(c) for n, c in run.kept.items() if not is_number(c.type)}
    parts: list[Markup | str] = [_correlations(run.score, numbers)] if numbers else []
    for name, groups in texts.items():
        level = next((n for n in numbers if _LEVEL.search(n)), None)
        if groups is not None and level is not None and _DISTORTION.search(name):
            parts.append(_by_level(run.score, name, groups, level, numbers[level]))
    for name, groups in texts.items():
        if groups is not None:
            parts.append(_group_table(run.score, name, groups))
        else:
            parts.append(_frequent_values(run.score, name, run.kept[name]))
    drawn = {name: values[np.isfinite(values)] for name, values in numbers.items()}
    plots = [distribution(values, name) for name, values in drawn.items() if len(values)]
    return render("columns.html", parts=parts, plots=plots)


def _frequent_values(score: np.ndarray, name: str, column: Any) -> Markup | str:  # noqa: ANN401
    """Return the table of the most frequent values of a column that has many."""
    counts = pc.value_counts(_plain(column))
    distinct = len(counts)
    order = np.argsort(-counts.field("counts").to_numpy(), kind="stable")[:_MAX_GROUPS]
    if counts.field("counts")[int(order[0])].as_py() == 1:
        return (
            f"Column {shorten(name)}: {distinct:,} values, each in one row: a name rather than a "
            "group, so no table."
        )
    groups = _masks(column, [counts.field("values")[int(i)].as_py() for i in order])
    title = f"{name}: the {len(order)} most frequent of {distinct:,} values"
    return _group_table(score, title, groups)


def _groups(column: Any) -> dict[str, np.ndarray] | None:  # noqa: ANN401
    """Return value -> (N,) bool mask, null as its own group; None for too many values."""
    values = pc.unique(_plain(column))
    if len(values) > _MAX_GROUPS:
        return None
    masks = _masks(column, values.to_pylist())
    return dict(sorted(masks.items(), key=lambda pair: pair[0]))


def _plain(column: Any) -> Any:  # noqa: ANN401
    """Return a column of booleans or dictionaries as plain text."""
    return pc.cast(column, pa.string())


def _masks(column: Any, values: Sequence[Any]) -> dict[str, np.ndarray]:  # noqa: ANN401
    wanted = pa.array(values, pa.string())
    codes = pc.fill_null(pc.index_in(_plain(column), wanted), -1).to_numpy()
    return {"(null)" if v is None else str(v): codes == i for i, v in enumerate(values)}


def _correlations(score: np.ndarray, numbers: Mapping[str, np.ndarray]) -> Markup:
    rows = [
        (
            shorten(name),
            f"{int((np.isfinite(values) & np.isfinite(score)).sum()):,}",
            number(srcc(score, values)),
        )
        for name, values in numbers.items()
    ]
    caption = "Rank correlation (SRCC) of the score with each numeric column"
    return table(caption, ("Column", "Images", "SRCC"), rows, "numbers")


def _group_table(score: np.ndarray, name: str, groups: Mapping[str, np.ndarray]) -> Markup:
    finite = score[np.isfinite(score)]
    axis = (float(finite.min()), float(finite.max()))
    rows: list[tuple[object, ...]] = []
    for value, mask in groups.items():
        here = score[mask & np.isfinite(score)]
        if not len(here):
            rows.append((shorten(value, 80), "0", NONE, NONE, ""))
            continue
        mean, median = float(here.mean()), float(np.median(here))
        cells = (shorten(value, 80), f"{len(here):,}", number(mean), number(median))
        rows.append((*cells, range_bar(here, mean, axis)))
    header = ("Value", "Images", "Mean", "Median", "Middle 80 % and mean")
    return table(f"Score by {shorten(name)}", header, rows, "numbers")


def _by_level(
    score: np.ndarray,
    name: str,
    groups: Mapping[str, np.ndarray],
    level_name: str,
    level: np.ndarray,
) -> Markup:
    levels = np.unique(level[np.isfinite(level)])
    shown = levels if len(levels) <= _MAX_LEVELS else levels[:0]
    rows = []
    for value, mask in groups.items():
        here = mask & np.isfinite(score)
        if not here.any():
            continue
        means = [score[here & (level == step)] for step in shown]
        cells = [number(float(m.mean())) if len(m) else NONE for m in means]
        agreement = srcc(score[here], level[here])
        rows.append((shorten(value, 80), f"{int(here.sum()):,}", number(agreement), *cells))
    steps = [f"Mean at {shorten(level_name)} {step:g}" for step in shown]
    caption = (
        f"Rank correlation (SRCC) of the score with {shorten(level_name)}, by {shorten(name)}: "
        f"{number(-1.0, 0)} if each step of distortion lowers the score"
    )
    return table(caption, ("Value", "Images", "SRCC", *steps), rows, "numbers")
