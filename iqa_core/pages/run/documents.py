"""The files that a run leaves in ``_run/``; one that is missing or damaged leaves its facts unknown."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["Summaries", "manifest_files", "planned_rows", "read_document", "read_summaries"]

_SUMMARY = re.compile(r"_run/summary(?:-(\d{1,9})-of-(\d{1,9}))?\.json")
#: Facts of which several shards have the sum; rates too, as shards run side by side.
_SUMMED = ("rows", "lost_rows", "parts", "images_per_second", "steady_images_per_second")
#: Facts that several shards have together where all have the same.
_SHARED = ("actors", "nodes_left_out", "machine", "version")


@dataclass(frozen=True)
class Summaries:
    """What the last runs of an output say of themselves.

    Attributes:
        merged: The summary, or one of all shards; empty if there is none.
        complete: Whether they say that every row of the manifest is there.
        stopped: Shards whose last run ended early, such as ``3/8``.
        absent: Shards that left no summary.
    """

    merged: dict[str, Any]
    complete: bool = False
    stopped: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def read_document(folder: Folder, name: str) -> dict[str, Any]:
    """Return a JSON object; empty if it can't be read."""
    try:
        document = folder.read_json(name)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def manifest_files(plan: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return name and size of the manifest's files; empty if the plan does not tell."""
    try:
        return [(str(file["name"]), int(file["size"])) for file in plan["files"]]
    except (KeyError, TypeError, ValueError):
        return []


def planned_rows(plan: Mapping[str, Any]) -> int | None:
    """Return the rows of the manifest; None if the plan does not tell."""
    rows = plan.get("rows")
    return rows if isinstance(rows, int) else None


def read_summaries(folder: Folder) -> Summaries:
    """Read the summary of an output, or those of its shards.

    Runs may have divided the manifest differently, one after the other. The facts are those of the
    division that ended last.
    """
    try:
        names = folder.list("_run/summary*.json")
    except OSError:
        names = []
    divisions: dict[int, dict[int, dict[str, Any]]] = {}
    for name in names:
        found = _SUMMARY.fullmatch(name)
        summary = read_document(folder, name) if found else {}
        if not found or not summary:
            continue
        index, count = int(found[1] or 0), int(found[2] or 0)
        if index < max(1, count):
            divisions.setdefault(count, {})[index] = summary
    if not divisions:
        return Summaries({})
    count, shards = max(divisions.items(), key=lambda one: _ended(list(one[1].values())))
    complete = any(_is_complete(*division) for division in divisions.items())
    if not count:
        return Summaries(shards[0], complete)
    stopped = [f"{i}/{count}" for i, summary in shards.items() if not _has_all_rows(summary)]
    absent = [f"{i}/{count}" for i in range(count) if i not in shards]
    merged = _merged(count, list(shards.values())) if count > 1 else shards[0]
    return Summaries(merged, complete, tuple(stopped), tuple(absent))


def _ended(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return when the last of some runs ended, in ISO 8601."""
    return max(str(summary.get("finished", "")) for summary in summaries)


def _is_complete(count: int, shards: Mapping[int, Mapping[str, Any]]) -> bool:
    return len(shards) == max(1, count) and all(map(_has_all_rows, shards.values()))


def _has_all_rows(summary: Mapping[str, Any]) -> bool:
    return summary.get("complete") is not False


def _merged(count: int, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summaries of several shards as one."""
    merged: dict[str, Any] = {
        "finished": _ended(summaries),
        "complete": len(summaries) == count and all(map(_has_all_rows, summaries)),
        "shards": f"{len(summaries)} of {count}",
    }
    for key in _SUMMED:
        if values := _numbers(summary.get(key) for summary in summaries):
            merged[key] = round(sum(values), 2)
    if seconds := _numbers(summary.get("seconds") for summary in summaries):
        merged["seconds"] = max(seconds)
    stages: dict[str, float] = {}
    for summary in summaries:
        times = summary.get("stage_seconds")
        for stage, time in times.items() if isinstance(times, dict) else ():
            stages[stage] = stages.get(stage, 0.0) + sum(_numbers([time]))
    merged["stage_seconds"] = stages
    bottlenecks = Counter(str(s["bottleneck"]) for s in summaries if s.get("bottleneck"))
    if bottlenecks:
        merged["bottleneck"] = bottlenecks.most_common(1)[0][0]
    first = summaries[0]
    equal = [key for key in _SHARED if all(s.get(key) == first.get(key) for s in summaries)]
    return merged | {key: first[key] for key in equal if key in first}


def _numbers(values: Iterable[Any]) -> list[float]:
    return [value for value in values if isinstance(value, int | float)]
