"""How a run goes, as one self-contained HTML page: rows, rate, time left, errors by kind, devices.

It shows the moment at which it was made; it has no script and loads nothing from elsewhere.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from iqa_core.pages.html import page, table
from iqa_core.pages.text import NONE, flatten, number, plural, share, value_of
from iqa_core.tables.run_state import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from iqa_core.tables.run_state import RunState

__all__ = ["status_page"]

#: Of a report, what has a place of its own on the page.
_SHOWN = {
    "state",
    "shard",
    "rows",
    "rows_done",
    "rows_done_before",
    "rows_of_run",
    "statuses",
    "rows_per_second",
    "seconds_left",
    "waiting",
    "cost",
    "began",
    "updated",
}


def status_page(name: str, runs: Sequence[RunState], now: float | None = None) -> str:
    """Return the page as HTML.

    Args:
        name: The output, without secrets.
        runs: Its runs: one, or one for each shard.
        now: Seconds since 1970; None is the present.
    """
    whole = together(runs)
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    facts = [
        (each, key, value) for each in runs for key, value in flatten(_rest(each)) if value != {}
    ]
    return page(
        "status.html",
        title=f"{whole.state.capitalize()}: {name}",
        made=made,
        tiles=_tiles(whole),
        notices=[
            f"{_name(each)}: {each.waiting or _ENDS[each.state]}"
            for each in runs
            if each.waiting or each.state in _ENDS
        ],
        runs=_runs(runs) if len(runs) > 1 else "",
        errors=_errors(whole),
        facts=table(
            "Facts", (), [(_fact(each, key, runs), value_of(v)) for each, key, v in facts], "facts"
        ),
    )


_ENDS = {
    "lost": "no heartbeat any more; the same command resumes",
    "failed": "ended by an error, which its log has; the same command resumes",
    "outage": "stopped, as rows of one host or bucket failed one after another; the same command resumes",
    "stopped": "stopped by a signal; the same command resumes",
}


def _name(run: RunState) -> str:
    return f"shard {run.shard}" if run.shard else "the run"


def _fact(run: RunState, key: str, runs: Sequence[RunState]) -> str:
    return f"{_name(run)}: {key}" if len(runs) > 1 else key


def _rest(run: RunState) -> dict[str, object]:
    return {key: value for key, value in run.facts.items() if key not in _SHOWN}


def _tiles(run: RunState) -> list[tuple[str, str]]:
    return [
        ("State", run.state),
        ("Rows", f"{share(run.rows_done, run.rows)} of {run.rows:,}"),
        ("Rows per second", number(run.rows_per_second, 1) if run.rows_per_second else NONE),
        ("Time left", NONE if run.seconds_left is None else _hours(run.seconds_left)),
        ("Not scored", f"{sum(run.failed_rows.values()):,}"),
        ("Cost so far", NONE if run.cost is None else number(run.cost, 2)),
        ("Last report", f"{_hours(run.age)} before this page"),
    ]


def _hours(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def _runs(runs: Sequence[RunState]) -> Markup:
    header = ("Shard", "State", "Rows", "Rows per second", "Time left", "Heartbeat")
    rows = [
        (
            each.shard or NONE,
            each.state,
            share(each.rows_done, each.rows),
            number(each.rows_per_second, 1),
            NONE if each.seconds_left is None else _hours(each.seconds_left),
            NONE if each.heartbeat is None else f"{each.heartbeat:.0f} s ago",
        )
        for each in runs
    ]
    return table(plural(len(runs), "shard"), header, rows)


def _errors(run: RunState) -> Markup:
    done = sum(run.statuses.values())
    rows = [(kind, share(count, done)) for kind, count in run.failed_rows.items()]
    return table(
        "Rows that could not be scored, by status", ("Status", "Rows"), rows or [("none", "0")]
    )
