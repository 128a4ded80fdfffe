"""Sections of numbers: the run's tiles and notices, distributions, failures, facts and bottleneck."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.pages.run.data import take
from iqa_core.pages.run.plots import BINS, SMALL_BINS, axis_of, histogram
from iqa_core.pages.run.text import flatten, name_of, plural, share, table_of, text, value_of

if TYPE_CHECKING:
    from iqa_core.pages.run.data import Run

__all__ = ["failures", "histograms", "notice", "run_facts", "tiles"]

_EXAMPLES = 3


def tiles(run: Run) -> str:
    """Return the figures at the top, as entries of a list."""
    failed = run.total - run.scored
    rate = run.summary.get("images_per_second")
    facts = [
        ("Rows", f"{run.total:,}"),
        ("Scored", f"{run.scored:,}"),
        ("Failed", share(failed, run.total) if failed else "0"),
        ("Images per second", value_of(rate) if isinstance(rate, int | float) else "unknown"),
        ("Model", value_of(run.config.get("model") or "unknown")),
        ("Prompt pairs", _pair_set(run)),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{text(value, 60)}</dd></div>" for name, value in facts)


def _pair_set(run: Run) -> str:
    source = run.config.get("prompts") or run.config.get("pairs")
    return f"{value_of(source) if source else 'unknown'} ({len(run.pairs)})"


def notice(run: Run) -> str:
    """Return what a reader has to know before anything else, if there is something."""
    notes = []
    if not run.summary:
        notes.append(
            "The run's summary is missing, so the run may not be finished: this page shows the "
            "rows committed so far."
        )
    if not np.isfinite(run.score).any():
        notes.append("No row has a score. See the failures below.")
    if run.sampled:
        notes.append(
            f"Distributions, tables of columns and disputes are of {len(run.place):,} of the run's "
            f"{run.total:,} rows, drawn at random together with the best, the worst and some "
            "failed ones. Counts of rows by status are of all rows."
        )
    return "".join(f'<p class="notice">{note}</p>' for note in notes)


def histograms(run: Run) -> str:
    """Return the distribution of the score, and of each pair's."""
    finite = run.score[np.isfinite(run.score)]
    if not len(finite):
        return ""
    columns = {name: values[np.isfinite(values)] for name, values in run.pairs.items()}
    columns = {name: values for name, values in columns.items() if len(values)}
    overall = histogram(finite, axis_of(finite), "Score, mean over the pairs", BINS, 190)
    if len(columns) < 2:
        return overall
    axis = axis_of(
        np.concatenate([values[[values.argmin(), values.argmax()]] for values in columns.values()])
    )
    small = "".join(
        histogram(values, axis, name, SMALL_BINS, 80) for name, values in columns.items()
    )
    return (
        f'{overall}<h3>By prompt pair</h3><p class="note">All on the same scale, so that the pairs '
        f'can be compared.</p><div class="multiples">{small}</div>'
    )


def failures(run: Run) -> str:
    """Return the failures by kind, with examples."""
    failed = np.flatnonzero(~run.ok)
    if not len(failed):
        return "<p>None: every row has a score.</p>" if run.total else "<p>The run has no rows.</p>"
    kinds = run.status.take(failed).to_pylist()
    places: dict[str, list[int]] = {}
    for kind, index in zip(kinds, failed, strict=True):
        places.setdefault(str(kind), []).append(int(index))
    examples = take(run, [i for rows in places.values() for i in rows[:_EXAMPLES]])
    table = [
        (
            f"<code>{text(kind)}</code>",
            f"{run.counts[kind]:,}",
            f"<ul>{''.join(_example(examples[i]) for i in rows[:_EXAMPLES])}</ul>",
        )
        for kind, rows in sorted(places.items(), key=lambda item: -run.counts[item[0]])
    ]
    caption = f"{run.total - run.scored:,} of {plural(run.total, 'row')} without a score, by kind"
    return table_of(caption, ("Status", "Rows", f"Up to {_EXAMPLES} examples"), table, "failures")


def _example(row: Mapping[str, Any]) -> str:
    return (
        f"<li><bdi>{text(name_of(row), 120)}</bdi><br>"
        f'<span class="error">{text(row["error"] or "no message", 300)}</span></li>'
    )


def run_facts(run: Run) -> str:
    """Return the seconds by stage with the bottleneck, the summary and the options."""
    facts = {k: v for k, v in run.summary.items() if k not in {"stage_seconds", "statuses"}}
    tables = [_stages(run.summary)]
    for caption, document in (("Summary", facts), ("Options", run.config)):
        rows = [(text(key, 80), text(value_of(value))) for key, value in flatten(document)]
        if rows:
            tables.append(table_of(caption, ("Fact", "Value"), rows, "facts"))
        else:
            tables.append(f'<p class="note">{caption}: unknown, as the run left none.</p>')
    return "".join(tables)


def _stages(summary: Mapping[str, Any]) -> str:
    stages = summary.get("stage_seconds")
    if not isinstance(stages, dict):
        return ""
    times = {k: float(v) for k, v in stages.items() if isinstance(v, int | float)}
    total = sum(times.values())
    if not total > 0 or not math.isfinite(total):
        return ""
    rows = [
        (
            text(name) + (' <strong class="mark">bottleneck</strong>' if slowest else ""),
            f"{seconds:,.2f}",
            f"{seconds / total:.0%}",
            '<svg class="range" height="14" aria-hidden="true"><rect '
            f'width="{100 * seconds / max(times.values()):.1f}%" y="3" height="8" rx="2"/></svg>',
        )
        for name, seconds in times.items()
        for slowest in [name == summary.get("bottleneck")]
    ]
    header = ("Stage", "Seconds", "Share", "Compared")
    return table_of("Time by stage, summed over its workers", header, rows, "numbers")
