"""Matches each row of scores with a row of labels: by place in the manifest, or by id."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IDENTITY, IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, URI
from iqa_core.errors import InputError
from iqa_core.evaluation.labels.columns import (
    ID_COLUMNS,
    find_column,
    find_id_columns,
    has_values,
    id_texts,
)
from iqa_core.evaluation.labels.files import read_scores
from iqa_core.evaluation.labels.id_matching import IdMatch, match_ids, why_unmatched
from iqa_core.evaluation.labels.places import column_names, find_places, match_places, read_places
from iqa_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from iqa_core.evaluation.labels.files import ScoreSet
    from iqa_core.evaluation.labels.places import Join

__all__ = ["RowMatch", "match_rows"]


@dataclass(frozen=True, eq=False)
class RowMatch:
    """The labels of one score set.

    Attributes:
        rows: (N,) int64: the row of each score's label, -1 where there is none.
        is_keyed: (N,) bool: which scores have a value of the key.
        is_label_keyed: (M,) bool: which labels have one.
        key: The key: ``identity``, ``image_id`` or ``uri``.
        label_column: The column of the labels that was the key.
        notes: How unequal ids were matched, or why few were.
    """

    rows: np.ndarray
    is_keyed: np.ndarray
    is_label_keyed: np.ndarray
    key: str
    label_column: str
    notes: tuple[str, ...] = ()


def match_rows(
    join: Join, runs: Sequence[ScoreSet], table: pa.Table, labels: str | None
) -> list[RowMatch]:
    """Match the rows of each score set with those of the labels, one to one.

    Args:
        join: By place, by id, or by place if it certainly means the same images, else by id.
        runs: The score sets.
        table: The labels.
        labels: Their file; None if they are columns of the first score set.

    Raises:
        InputError: If it is impossible, or a key is not unique.
    """
    name = f"--labels {redact(labels)}" if labels else f"--scores {runs[0].name}"
    columns = find_places(join, runs, table, labels)
    if columns is not None:
        places = read_places(table, columns, name)
        return [_match_places(run, places) for run in runs]
    if labels is None:
        table = _own_ids(runs[0])
    return [_match_ids(run, table, name, join) for run in runs]


# Places -------------------------------------------------------------------------------------------


def _match_places(run: ScoreSet, labels: pd.DataFrame) -> RowMatch:
    rows, is_keyed = match_places(run, labels)
    notes = []
    if (rows < 0).all():
        notes.append(
            f"--scores {run.name}: no row has a place of the labels in the manifest: give "
            "--join image_id to match image_id or file names"
        )
    is_label_keyed = labels.notna().all(axis=1).to_numpy()
    return RowMatch(rows, is_keyed, is_label_keyed, "identity", MANIFEST_ROW, tuple(notes))


# Ids ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Ids:
    """A column of ids.

    Attributes:
        column: Its name.
        values: (K,) distinct texts, of the rows that have one.
        is_keyed: (N,) bool: these rows.
        repeated: An id that is not unique, if there is one; then the column can't be the key.
    """

    column: str
    values: pa.Array
    is_keyed: np.ndarray
    repeated: str | None

    @classmethod
    def of(cls, table: pa.Table, column: str, name: str) -> _Ids:
        texts = id_texts(table, column, name)
        values = texts.drop_null()
        repeated = None
        if len(pc.unique(values)) < len(values):
            counted = pc.value_counts(values)
            repeated = counted.filter(pc.greater(counted.field(1), 1)).field(0)[0].as_py()
        return cls(column, values, texts.is_valid().to_numpy(zero_copy_only=False), repeated)

    def check(self, name: str) -> None:
        """Check that it can join.

        Raises:
            InputError: If an id is there twice.
        """
        if self.repeated is not None:
            raise InputError(
                f"{name} has {self.column} {redact(self.repeated)!r} more than once: give the "
                "manifest that was scored as --labels, which joins by place"
            )


def _match_ids(run: ScoreSet, table: pa.Table, name: str, join: Join) -> RowMatch:
    """Match by the first columns of ids that match at least half of the smaller side.

    Raises:
        InputError: If there are none, or an id of the first ones is not unique.
    """
    run_name = f"--scores {run.name}"
    columns = find_id_columns(table)
    best: tuple[IdMatch, _Ids, _Ids] | None = None
    sides = (
        (_Ids.of(table, column, name), scores) for column in columns for scores in _score_ids(run)
    )
    for labels, scores in sides:
        if best is None:
            labels.check(name)
            if labels.column == IMAGE_ID:
                scores.check(run_name)
        if labels.repeated is not None or scores.repeated is not None:
            continue
        match = match_ids(scores.values, labels.values)
        if best is None or match.count > best[0].count:
            best = match, scores, labels
        if not _is_little(match, scores, labels):
            break
    if best is None:
        for scores in _score_ids(run) if columns else ():
            scores.check(run_name)
        places = [find_column(table.column_names, key)[0] for key in IDENTITY]
        has_places = join == "auto" and all(places)
        _refuse(run_name if columns else name, run.table if columns else table, join, has_places)
    return _row_match(*best, run_name, name)


def _score_ids(run: ScoreSet) -> Iterator[_Ids]:
    name = f"--scores {run.name}"
    if has_values(run.table, IMAGE_ID):
        yield _Ids.of(run.table, IMAGE_ID, name)
    uris = read_scores(run.uri, [URI]).table
    if has_values(uris, URI):
        yield _Ids.of(uris, URI, name)


def _own_ids(run: ScoreSet) -> pa.Table:
    """Return the columns of ids that the scores themselves have."""
    uris = read_scores(run.uri, [URI]).table
    return uris.select([name for name in (IMAGE_ID, URI) if name in uris.column_names])


def _is_little(match: IdMatch, scores: _Ids, labels: _Ids) -> bool:
    return 2 * match.count < min(len(scores.values), len(labels.values))


def _refuse(name: str, table: pa.Table, join: Join, has_places: bool) -> NoReturn:
    if not len(table):
        raise InputError(f"{name} has no rows, only the columns {column_names(table)}: give labels")
    reason = "" if join == "image_id" else " and these are not rows of one manifest"
    fix = "add one, or give the manifest that was scored as --labels"
    if has_places:
        fix += f", or --join identity to match {MANIFEST_FILE} and {MANIFEST_ROW}"
    raise InputError(
        f"{name} has no {IMAGE_ID}{reason}: {fix}; it may also be called "
        f"{', '.join(ID_COLUMNS[1:])}, but the columns are {column_names(table)}"
    )


def _row_match(match: IdMatch, scores: _Ids, labels: _Ids, run: str, name: str) -> RowMatch:
    """Convert a match of ids to a match of rows, with the notes to print."""
    label_rows = np.flatnonzero(labels.is_keyed)
    rows = np.full(len(scores.is_keyed), -1, dtype=np.int64)
    rows[scores.is_keyed] = np.where(match.rows >= 0, label_rows[match.rows], -1)
    notes = []
    if (scores.column, labels.column) != (IMAGE_ID, IMAGE_ID):
        notes.append(f"{run}: {scores.column} is matched with {labels.column!r} of {name}")
    for ignored, (count, score, label) in match.steps.items():
        notes.append(
            f"{run}: {count:,} {'row' if count == 1 else 'rows'} joined ignoring {ignored}, such as "
            f"{_shown(score, label)}"
        )
    notes += [f"{run}: {redact(reason)}" for reason in match.skipped[:1]]
    if _is_little(match, scores, labels):
        few, fewer, why = why_unmatched(scores.values, labels.values, match)
        notes.append(
            f"{run}: only {match.count:,} of {len(scores.values):,} scores match one of "
            f"{len(labels.values):,} labels: {scores.column} is {_quoted(few)} and {labels.column!r} of "
            f"the labels {_quoted(fewer)}; {why}"
        )
    return RowMatch(
        rows, scores.is_keyed, labels.is_keyed, scores.column, labels.column, tuple(notes)
    )


def _shown(score: str, label: str) -> str:
    """Return a pair of ids for a message; escaped if they are displayed the same."""
    show = (
        ascii
        if unicodedata.normalize("NFC", score) == unicodedata.normalize("NFC", label)
        else repr
    )
    return f"{show(redact(score))} with {show(redact(label))}"


def _quoted(ids: Sequence[str]) -> str:
    return ", ".join(repr(redact(text)) for text in ids)
