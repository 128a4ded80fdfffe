"""Show how a run goes, from any machine that can read its output: state, rows, rate, time left, errors.

Reads what `iqa score` and `iqa embed` write beside the output every ten seconds; needs no Ray and changes
nothing there. A run without a heartbeat is lost: the same command resumes. Exit status 1 if a run is lost
or has failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from iqa_core.errors import InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.run_state import RunState, read_runs, together

from .options import option
from .progress import duration

__all__ = ["Config", "describe", "run"]

_RESUMES = "the same command resumes"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa status``."""

    scores: str = option(help="output folder of `iqa score` or `iqa embed`", metavar="O", path=True)
    json: bool = option(False, help="print all that is known as JSON")
    html: str | None = option(
        None, help="write a page, too, an .html file", metavar="FILE", path=True
    )


def run(config: Config) -> int:
    """Read and print; return the exit status."""
    if config.html is not None:
        check_output_file("html", config.html, ".html")
    folder = Folder.given(config.scores, "scores")
    try:
        runs = read_runs(folder)
    except OSError as error:
        raise InputError(
            f"--scores {redact(config.scores)} can't be read ({redact(str(error))}): check path and "
            "permissions"
        ) from error
    whole = together(runs)
    if config.json:
        document = {"whole": asdict(whole), "runs": [asdict(each) for each in runs]}
        print(json.dumps(document, indent=2, default=str))
    else:
        if len(runs) > 1 or whole.not_begun:
            print(describe(whole, "all shards"))
        for each in runs:
            print(describe(each, f"shard {each.shard}" if each.shard else redact(config.scores)))
    if config.html:
        from iqa_core.pages.status import status_page

        try:
            Path(config.html).write_text(status_page(redact(config.scores), runs), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"--html {config.html} can't be written ({error_line(error)}): check path and permissions"
            ) from error
    return 1 if whole.state in ("lost", "failed") else 0


def describe(run: RunState, name: str) -> str:
    """Return a run as one line.

    >>> describe(RunState("0/2", "running", 100, 50, {"ok": 45, "empty": 5}, 10.0, 5.0), "shard 0/2")
    'shard 0/2: running; 50 of 100 rows (50 %); 10.0 rows/s; 5 s left; 5 not scored: empty 5'
    """
    share = 100 * run.rows_done / run.rows if run.rows else 100.0
    parts = [f"{name}: {run.state}", f"{run.rows_done:,} of {run.rows:,} rows ({share:.0f} %)"]
    if run.rows_per_second:
        parts.append(f"{run.rows_per_second:,.1f} rows/s")
    if run.seconds_left is not None:
        parts.append(f"{duration(run.seconds_left)} left")
    if actors := run.facts.get("actors"):
        parts.append(f"{_count(actors, 'actor')} on {_count(run.facts.get('nodes', 0), 'node')}")
    if run.failed_rows:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in run.failed_rows.items())
        parts.append(f"{sum(run.failed_rows.values()):,} not scored: {kinds}")
    if run.cost is not None:
        parts.append(f"cost so far {run.cost:,.2f}")
    if run.not_begun:
        parts.append(f"{_count(run.not_begun, 'shard')} not begun")
    if run.waiting:
        parts.append(run.waiting)
    if run.state == "lost":
        silent = (
            "no heartbeat"
            if run.heartbeat is None
            else f"no heartbeat for {duration(run.heartbeat)}"
        )
        parts.append(f"{silent}, last report {duration(run.age)} ago; {_RESUMES}")
    elif run.state in ("stopped", "outage", "failed"):
        parts.append(f"{duration(run.age)} ago; {_RESUMES}")
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
