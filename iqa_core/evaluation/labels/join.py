"""Joins scores and labels of the same images; every row that is left out is counted by reason.

A row's identity is its place in the manifest. Where the labels are columns of the very manifest
that was scored, it joins them; elsewhere ``image_id`` or the file's name does, which then has to be
unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IDENTITY
from iqa_core.errors import InputError, Status
from iqa_core.evaluation.labels.columns import category_texts, find_column, fulfils, read_numbers
from iqa_core.evaluation.labels.files import LabelTable, read_labels, read_scores
from iqa_core.evaluation.labels.places import Join, column_names
from iqa_core.evaluation.labels.rows import RowMatch, match_rows
from iqa_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.evaluation.labels.files import ScoreSet

__all__ = ["Join", "Joined", "join_labels"]

_FEWEST = 3  # images; with fewer every correlation is 1, -1 or undefined
_MOST_GROUPS = 200


@dataclass(frozen=True, eq=False)
class Joined:
    """The images that have a label and a score in every set.

    A score set is named by its URI, without the password and signed query that it may have.

    Attributes:
        scores: Score set -> (N,) float64.
        labels: (N,) float64.
        groups: (N,) text, or None.
        clusters: (N,) text, or None.
        join: ``identity``, or the column of the scores that joined: ``image_id`` or ``uri``.
        rows: Score set -> its rows.
        left_out: Score set -> reason -> rows left out; together with N they sum to its rows.
        unscored: Number of labelled images without a row in any score set.
        notes: How files, columns and ids were read, where that is not obvious.
    """

    scores: dict[str, np.ndarray]
    labels: np.ndarray
    groups: np.ndarray | None
    clusters: np.ndarray | None
    join: str
    rows: dict[str, int]
    left_out: dict[str, dict[str, int]]
    unscored: int
    notes: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Return a line for each score set on which rows were used and left out, and the notes."""
        lines = []
        for name, rows in self.rows.items():
            reasons = [f"{count:,} {reason}" for reason, count in self.left_out[name].items()]
            left_out = f"; left out: {', '.join(reasons)}" if reasons else ""
            lines.append(f"{name}: {len(self.labels):,} of {rows:,} rows used{left_out}")
        if self.unscored:
            lines.append(f"{self.unscored:,} labelled images are in no score set")
        return [*lines, *self.notes]


def join_labels(
    scores: Sequence[str],
    labels: str | None = None,
    *,
    label_column: str = "mos",
    join: Join = "auto",
    group_column: str | None = None,
    cluster_column: str | None = None,
    where: str | None = None,
    pair: str | None = None,
) -> Joined:
    """Read the scores of runs and the labels of their images, and join them.

    Args:
        scores: Outputs of ``iqa score``; each is a score set.
        labels: A file of delimited text, an Excel workbook, a Parquet file or a folder of these;
            None takes the labels from the columns that the first score set kept.
        label_column: The column of labels; numbers, also as spreadsheets write them, null where
            there is none.
        join: ``identity``, ``image_id`` (or file names), or the first of the two that is possible.
        group_column: Column to group by, of the labels or else of the first score set.
        cluster_column: Column of the clusters for the bootstrap, found likewise.
        where: ``COLUMN=VALUE``: use only the images with this value, found likewise.
        pair: Name of the prompt pair whose scores are used; None uses the image scores.

    Returns:
        The images to use, and how many rows were left out for which reason.

    Raises:
        InputError: If something is missing, not unique or not a number, or fewer than three
            images remain.
    """
    kept, _, value = (where or "").partition("=")
    if where is not None and (not kept or "=" not in where):
        raise InputError(
            argument="where", value=where, limit="COLUMN=VALUE", fix="give one, such as split=test"
        )
    names = [redact(uri) for uri in scores]
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated:
        raise InputError(f"--scores {repeated[0]} is given twice: name each output once")
    texts = {
        option: column
        for option, column in (
            ("by", group_column),
            ("resample-by", cluster_column),
            ("where", kept),
        )
        if column
    }
    runs = [read_scores(run, [label_column, *texts.values()], pair) for run in scores]
    if labels is None:
        source = _Source(f"--scores {runs[0].name}", LabelTable(runs[0].table))
    else:
        source = _Source(f"--labels {redact(labels)}", read_labels(labels))
    notes = [f"{source.name}: {note}" for note in source.labels.notes]
    values, label_notes = _read_labels(source, runs[0], label_column, is_kept=labels is None)
    matches = match_rows(join, runs, source.labels.table, labels)
    table = pd.DataFrame({"label": values, "is_keyed": matches[0].is_label_keyed})
    for option, name in texts.items():
        column, is_text, renamed = _find_texts(option, name, source, runs[0], matches[0])
        label_notes += renamed
        if option == "where":
            column, unmet = _check_condition(column, kept, value)
            label_notes += unmet
        else:
            column = category_texts(column, is_text=is_text)
        table[option] = column.to_pandas()
    frames = {run.name: _score_frame(run, match) for run, match in zip(runs, matches, strict=True)}
    notes += label_notes + _without_id(source, table, matches[0])
    notes += [note for match in matches for note in match.notes]
    joined = _join(frames, table, matches[0].key, tuple(dict.fromkeys(notes)))
    _check_size(joined, group_column, cluster_column)
    return joined


# Columns ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
    """The source of the labels: a name for messages, and the table."""

    name: str
    labels: LabelTable


def _read_labels(
    source: _Source, run: ScoreSet, label_column: str, *, is_kept: bool
) -> tuple[np.ndarray, list[str]]:
    """Return the labels, (M,) float64, NaN where there is none, and notes on how they were read."""
    table = source.labels.table
    column, note = find_column(table.column_names, label_column)
    if not column:
        hint = (
            "name one by --label-column, give --labels, or score with --keep"
            if is_kept
            else "name it: --label-column"
        )
        have = ", ".join(run.columns) if is_kept else column_names(table)
        raise InputError(f"{source.name} has no column {label_column!r}, but {have}: {hint}")
    values, notes = read_numbers(table, column, source.name, delimiter=source.labels.delimiter)
    return values, [f"{source.name}: {note}", *notes] if note else notes


def _find_texts(
    option: str, column: str, source: _Source, run: ScoreSet, match: RowMatch
) -> tuple[pa.ChunkedArray, bool, list[str]]:
    """Return a column for each row of the labels, from the labels or else from the first score set.

    Returns:
        The column, null where the score set has no such row; whether its file knows only text; and
        a note if its name is written otherwise.

    Raises:
        InputError: If there is none, or it is of a type that has no text.
    """
    tables = {source.name: source.labels.table, f"--scores {run.name}": run.table}
    for name, table in tables.items():
        found, note = find_column(table.column_names, column)
        if not found:
            continue
        values = table[found]
        try:
            pc.cast(values, pa.string())
        except pa.ArrowException as error:
            raise InputError(
                f"--{option} {column!r} of {name} is {values.type}: name a column of text or numbers"
            ) from error
        is_of_labels = table is source.labels.table
        if not is_of_labels:
            rows = np.full(len(match.is_label_keyed), -1)
            there = match.rows >= 0
            rows[match.rows[there]] = np.flatnonzero(there)
            values = values.take(pa.array(rows, mask=rows < 0))
        notes = [f"{name}: {note}"] if note else []
        return values, is_of_labels and source.labels.is_text, notes
    have = " and ".join(f"{name} has {column_names(table)}" for name, table in tables.items())
    raise InputError(f"--{option} {column!r} is no column: {have}")


def _check_condition(
    column: pa.ChunkedArray, name: str, value: str
) -> tuple[pa.ChunkedArray, list[str]]:
    """Return which rows fulfil a condition, and a note if none does."""
    is_met = fulfils(column, value)
    if is_met.any():
        return pa.chunked_array([is_met]), []
    counted = pc.value_counts(pc.cast(column, pa.string()).drop_null())
    counts = sorted(counted.to_pylist(), key=lambda count: -count["counts"])[:3]
    values = ", ".join(f"{count['values']!r} ({count['counts']:,})" for count in counts) or "empty"
    return pa.chunked_array([is_met]), [
        f"--where {name}={value} holds for no row: {name} is {values}"
    ]


def _without_id(source: _Source, table: pd.DataFrame, match: RowMatch) -> list[str]:
    number = int((table["label"].notna() & ~table["is_keyed"]).sum())
    if not number:
        return []
    rows = "row has" if number == 1 else "rows have"
    return [f"{source.name}: {number:,} {rows} a label but no {match.label_column}"]


def _score_frame(run: ScoreSet, match: RowMatch) -> pd.DataFrame:
    scored = pc.equal(run.table["status"], Status.OK.value).to_pandas()
    values, _ = read_numbers(run.table, "score", f"--scores {run.name}")
    return pd.DataFrame(
        {
            "score": np.where(scored, values, np.nan),
            "is_keyed": match.is_keyed,
            "row": match.rows,
        }
    )


# Joining ------------------------------------------------------------------------------------------


def _join(
    frames: dict[str, pd.DataFrame], table: pd.DataFrame, key: str, notes: tuple[str, ...]
) -> Joined:
    checks = [(table["label"].isna(), "without a label")]
    if "where" in table:
        checks.append((~table["where"], "outside of --where"))
    if "resample-by" in table:
        checks.append((table["resample-by"].isna(), "without a --resample-by value"))
    masks, names = zip(*checks, strict=True)
    reject = np.select(masks, names, "")
    usable = table["is_keyed"].to_numpy() & (reject == "")
    present = np.zeros(len(table), dtype=bool)
    scores = {}
    for name, frame in frames.items():
        there = frame[frame["row"] >= 0]
        present[there["row"]] = True
        scores[name] = np.full(len(table), np.nan)
        scores[name][there["row"]] = there["score"]
    used = usable & np.isfinite(np.stack(list(scores.values()))).all(axis=0)
    rows = table[used]
    count = int(used.sum())
    return Joined(
        scores={name: values[used] for name, values in scores.items()},
        labels=rows["label"].to_numpy(),
        groups=rows["by"].fillna("(none)").to_numpy(dtype=str) if "by" in rows else None,
        clusters=rows["resample-by"].to_numpy(dtype=str) if "resample-by" in rows else None,
        join=key,
        rows={name: len(frame) for name, frame in frames.items()},
        left_out={name: _account(frame, reject, key, count) for name, frame in frames.items()},
        unscored=int((usable & ~present).sum()),
        notes=notes,
    )


def _account(frame: pd.DataFrame, reject: np.ndarray, key: str, used: int) -> dict[str, int]:
    """Return how many rows of a score set are left out, by the first reason of each."""
    reason = np.select(
        [frame["score"].isna(), ~frame["is_keyed"], frame["row"] < 0],
        [
            "not scored",
            f"without {IDENTITY[0] if key == 'identity' else key}",
            "without a row in the labels",
        ],
        np.append(reject, "")[frame["row"]],
    )
    names, counts = np.unique(reason.astype(str), return_counts=True)
    left_out = {str(name): int(count) for name, count in zip(names, counts, strict=True) if name}
    elsewhere = len(frame) - sum(left_out.values()) - used
    return left_out | ({"not scored in another set": elsewhere} if elsewhere else {})


def _check_size(joined: Joined, group_column: str | None, cluster_column: str | None) -> None:
    count = len(joined.labels)
    if count < _FEWEST:
        raise InputError(
            f"{count} images have a label and a score, but at least {_FEWEST} are needed: "
            f"{'; '.join(joined.describe())}"
        )
    groups = 0 if joined.groups is None else len(np.unique(joined.groups))
    if groups > _MOST_GROUPS:
        raise InputError(
            f"--by {group_column!r} has {groups:,} values, more than {_MOST_GROUPS}: name a column of "
            "kinds, such as distortion"
        )
    if joined.clusters is not None and len(np.unique(joined.clusters)) < 2:
        raise InputError(
            f"--resample-by {cluster_column!r} has one value, but the bootstrap needs several: leave "
            "it out"
        )
