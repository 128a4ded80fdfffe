"""Matches each row of scores with a row of labels: by place in the manifest, or by id."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IDENTITY, IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, URI
from iqa_core.errors import InputError
from iqa_core.evaluation.labels.columns import ID_COLUMNS, find_column, find_id_columns
from iqa_core.evaluation.labels.files import PLACE, SIZE, read_scores
from iqa_core.evaluation.labels.id_matching import IdMatch, match_ids, why_unmatched
from iqa_core.redaction import redact
from iqa_core.tables.text_types import plain_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.evaluation.labels.files import ScoreSet

__all__ = ["Join", "RowMatch", "column_names", "match_rows"]

Join = Literal["auto", "identity", "image_id"]


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
    if _is_by_place(join, runs, table, labels):
        keys = _places(table, name)
        return [_match_places(run, keys) for run in runs]
    if labels is None:
        table = _own_ids(runs[0])
    return [_match_ids(run, table, name, join) for run in runs]


def column_names(table: pa.Table) -> str:
    """Return the names of a table's columns for a message, without internal ones."""
    return ", ".join(name for name in table.column_names if not name.startswith("_place"))


# Places -------------------------------------------------------------------------------------------


def _is_by_place(join: Join, runs: Sequence[ScoreSet], table: pa.Table, labels: str | None) -> bool:
    """Return whether to join by place: if it certainly means the same rows, or the user says so."""
    names = table.column_names
    same_manifest = all(run.files and run.files == runs[0].files for run in runs)
    if labels is None:
        sure, possible = len(runs) == 1 or same_manifest, True
    elif all(_place_column(table, key) for key in IDENTITY) and SIZE not in names:
        sure = possible = True
    else:
        possible = SIZE in names
        sure = possible and same_manifest and runs[0].files == _files(table)
    if join == "identity" and not possible:
        raise InputError(
            f"--join identity needs --labels as Parquet, or with the columns {MANIFEST_FILE} and "
            f"{MANIFEST_ROW}: {redact(labels or '')} has {column_names(table)}"
        )
    return join == "identity" or (join == "auto" and sure)


def _files(table: pa.Table) -> list[tuple[str, int]]:
    places = table.group_by([PLACE[0], SIZE]).aggregate([]).to_pylist()
    return sorted((place[PLACE[0]], place[SIZE]) for place in places)


def _place_column(table: pa.Table, key: str) -> str:
    own = dict(zip(IDENTITY, PLACE, strict=True))[key]
    return find_column(table.column_names, key)[0] or (own if own in table.column_names else "")


def _places(table: pa.Table, name: str) -> pd.DataFrame:
    """Return each row's place in the manifest; null where it has none.

    Raises:
        InputError: If a place is there twice.
    """
    columns = {}
    for key in IDENTITY:
        column = table[_place_column(table, key)]
        if key == MANIFEST_ROW:  # text in CSV, and 3.0 where some rows have none
            column = plain_types(pa.table([column], [key])).column(0)
        try:
            kind = pa.int64() if key == MANIFEST_ROW else pa.string()
            columns[key] = pc.cast(column, kind).to_pandas()
        except pa.ArrowException as error:
            raise InputError(f"column {key} of {name} is {column.type}: {error}") from error
    places = pd.DataFrame(columns)
    keyed = places[places.notna().all(axis=1)]
    twice = keyed.duplicated()
    if twice.any():
        place = " row ".join(str(part) for part in keyed[twice].iloc[0])
        raise InputError(
            f"{name} has {MANIFEST_FILE} {place!r} more than once: `iqa verify` shows more"
        )
    return places


def _match_places(run: ScoreSet, labels: pd.DataFrame) -> RowMatch:
    scores = _places(run.table, f"--scores {run.name}")
    keyed = labels[labels.notna().all(axis=1)]
    keyed = keyed.astype({MANIFEST_ROW: np.int64}).assign(row=keyed.index)
    rows = scores.merge(keyed, on=[*IDENTITY], how="left")["row"].fillna(-1)
    return RowMatch(
        rows.to_numpy(np.int64),
        scores.notna().all(axis=1).to_numpy(),
        labels.notna().all(axis=1).to_numpy(),
        "identity",
        MANIFEST_ROW,
    )


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
        try:
            texts = pc.cast(table[column], pa.string()).combine_chunks()
        except pa.ArrowException as error:
            raise InputError(
                f"column {column} of {name} is {table[column].type}: {error}"
            ) from error
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
        _refuse(run_name if columns else name, run.table if columns else table, join)
    return _row_match(*best, run_name, name)


def _score_ids(run: ScoreSet) -> Iterator[_Ids]:
    name = f"--scores {run.name}"
    if _has_values(run.table, IMAGE_ID):
        yield _Ids.of(run.table, IMAGE_ID, name)
    uris = read_scores(run.name, [URI]).table
    if _has_values(uris, URI):
        yield _Ids.of(uris, URI, name)


def _has_values(table: pa.Table, column: str) -> bool:
    return column in table.column_names and table[column].null_count < len(table)


def _own_ids(run: ScoreSet) -> pa.Table:
    """Return the columns of ids that the scores themselves have."""
    uris = read_scores(run.name, [URI]).table
    return uris.select([name for name in (IMAGE_ID, URI) if name in uris.column_names])


def _is_little(match: IdMatch, scores: _Ids, labels: _Ids) -> bool:
    return 2 * match.count < min(len(scores.values), len(labels.values))


def _refuse(name: str, table: pa.Table, join: Join) -> NoReturn:
    reason = "" if join == "image_id" else " and these are not rows of one manifest"
    raise InputError(
        f"{name} has no {IMAGE_ID}{reason}: add one, or give the manifest that was scored as --labels; "
        f"it may also be called {', '.join(ID_COLUMNS[1:])}, but the columns are {column_names(table)}"
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
