"""Sections of numbers: the run's tiles and notices, distributions, failures, facts and bottleneck."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from iqa_core.pages.html import render, table
from iqa_core.pages.run.data import take
from iqa_core.pages.svg import BINS, SMALL_BINS, axis_of, bar, histogram
from iqa_core.pages.text import flatten, name_of, plural, share, shorten, value_of

if TYPE_CHECKING:
    from iqa_core.pages.run.data import Run

__all__ = ["failures", "histograms", "notices", "run_facts", "tiles"]

_EXAMPLES = 3
_NAMED = 10  # shards that a notice names


def tiles(run: Run) -> list[tuple[str, str]]:
    """Return the figures at the top: names and values."""
    failed = run.total - run.scored
    rate = run.summaries.merged.get("images_per_second")
    return [
        ("Rows", f"{run.total:,}"),
        ("Scored", f"{run.scored:,}"),
        ("Failed", share(failed, run.total) if failed else "0"),
        ("Images per second", value_of(rate) if isinstance(rate, int | float) else "unknown"),
        ("Model", shorten(value_of(run.config.get("model") or "unknown"), 60)),
        ("Prompt pairs", shorten(_pair_set(run), 60)),
    ]


def _pair_set(run: Run) -> str:
    source = run.config.get("prompts") or run.config.get("pairs")
    return f"{value_of(source) if source else 'unknown'} ({len(run.pairs)})"


def notices(run: Run) -> list[str]:
    """Return the notices at the top of the page."""
    notes = [unfinished] if (unfinished := _unfinished(run)) else []
    if not np.isfinite(run.score).any():
        notes.append("No row has a score. See the failures below.")
    if run.sampled:
        notes.append(
            f"Distributions, tables of columns and disputes are of {len(run.place):,} of the run's "
            f"{run.total:,} rows, drawn at random together with the best, the worst and some "
            "failed ones. Counts of rows by status are of all rows."
        )
    return notes


def _unfinished(run: Run) -> str | None:
    """Return that the run is not finished, and why; None if it is."""
    summaries, planned = run.summaries, run.planned
    lacks_rows = planned is not None and run.total < planned
    if run.total == planned or (summaries.complete and not lacks_rows):
        return None
    if not summaries.merged and not lacks_rows:
        return (
            "The run's summary is missing, so the run may not be finished: this page shows the "
            "rows committed so far."
        )
    count = f"{run.total:,} of {planned:,} " if lacks_rows else ""
    text = f"The run is not finished: this page shows the {count}rows committed so far."
    for what, shards in (("Ended early", summaries.stopped), ("No summary", summaries.absent)):
        if shards:
            rest = f" and {len(shards) - _NAMED:,} more" if len(shards) > _NAMED else ""
            noun = "shard" if len(shards) == 1 else "shards"
            text += f" {what}: {noun} {', '.join(shards[:_NAMED])}{rest}."
    return text


def histograms(run: Run, tool: Markup) -> Markup:
    """Return the distribution of the score, a tool below it, and the distribution of each pair's."""
    finite = run.score[np.isfinite(run.score)]
    if not len(finite):
        return Markup("")
    columns = {name: values[np.isfinite(values)] for name, values in run.pairs.items()}
    columns = {name: values for name, values in columns.items() if len(values)}
    overall = histogram(finite, axis_of(finite), "Score, mean over the pairs", BINS, 190)
    pairs = []
    if len(columns) > 1:
        ends = [values[[values.argmin(), values.argmax()]] for values in columns.values()]
        axis = axis_of(np.concatenate(ends))
        pairs = [histogram(values, axis, name, SMALL_BINS, 80) for name, values in columns.items()]
    return render("scores.html", overall=overall, tool=tool, pairs=pairs)


def failures(run: Run) -> Markup:
    """Return the failures by kind, with examples."""
    failed = np.flatnonzero(~run.ok)
    if not len(failed):
        text = "None: every row has a score." if run.total else "The run has no rows."
        return render("paragraph.html", text=text, kind="")
    kinds = run.status.take(failed).to_pylist()
    places: dict[str, list[int]] = {}
    for kind, index in zip(kinds, failed, strict=True):
        places.setdefault(str(kind), []).append(int(index))
    examples = take(run, [i for rows in places.values() for i in rows[:_EXAMPLES]])
    cells = [
        (
            render("code.html", value=kind),
            f"{run.counts[kind]:,}",
            render("failures.html", examples=[_example(examples[i]) for i in rows[:_EXAMPLES]]),
        )
        for kind, rows in sorted(places.items(), key=lambda item: -run.counts[item[0]])
    ]
    caption = f"{run.total - run.scored:,} of {plural(run.total, 'row')} without a score, by kind"
    return table(caption, ("Status", "Rows", f"Up to {_EXAMPLES} examples"), cells, "failures")


def _example(row: Mapping[str, Any]) -> tuple[str, str]:
    return shorten(name_of(row), 120), shorten(row["error"] or "no message", 300)


def run_facts(run: Run) -> Markup:
    """Return the seconds by stage with the bottleneck, the summary and the options."""
    summary = run.summaries.merged
    facts = {k: v for k, v in summary.items() if k not in {"stage_seconds", "statuses"}}
    tables = [_stages(summary)]
    for caption, document in (("Summary", facts), ("Options", run.config)):
        rows = [(shorten(key, 80), value_of(value)) for key, value in flatten(document)]
        if rows:
            tables.append(table(caption, ("Fact", "Value"), rows, "facts"))
        else:
            text = f"{caption}: unknown, as the run left none."
            tables.append(render("paragraph.html", text=text, kind="note"))
    return Markup("").join(tables)


def _stages(summary: Mapping[str, Any]) -> Markup:
    stages = summary.get("stage_seconds")
    if not isinstance(stages, dict):
        return Markup("")
    times = {k: float(v) for k, v in stages.items() if isinstance(v, int | float)}
    total = sum(times.values())
    if not total > 0 or not math.isfinite(total):
        return Markup("")
    rows = [
        (
            render("stage.html", name=name, slowest=name == summary.get("bottleneck")),
            f"{seconds:,.2f}",
            f"{seconds / total:.0%}",
            bar(seconds / max(times.values())),
        )
        for name, seconds in times.items()
    ]
    header = ("Stage", "Seconds", "Share", "Compared")
    return table("Time by stage, summed over its workers", header, rows, "numbers")
