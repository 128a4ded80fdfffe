"""Matches scores and labels by their place in the manifest, where it certainly means the same rows.

A file of labels may have two places: its own, which is a row's file and number, and one in its columns
``manifest_file`` and ``manifest_row``. A manifest that ``iqa select`` wrote has both, and the columns are
places in the manifest that was selected from: a run over the selection has other places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IDENTITY, IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, URI
from iqa_core.errors import InputError
from iqa_core.evaluation.labels.columns import find_column, has_values, id_texts
from iqa_core.evaluation.labels.files import PLACE, SIZE, read_scores
from iqa_core.redaction import redact
from iqa_core.tables.text_types import plain_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.evaluation.labels.files import ScoreSet

__all__ = ["Join", "column_names", "find_places", "match_places", "read_places"]

Join = Literal["auto", "identity", "image_id"]


def column_names(table: pa.Table) -> str:
    """Return the names of a table's columns for a message, without internal ones."""
    return ", ".join(name for name in table.column_names if not name.startswith("_place"))


def find_places(
    join: Join, runs: Sequence[ScoreSet], table: pa.Table, labels: str | None
) -> tuple[str, str] | None:
    """Find the columns of the labels' places.

    Args:
        join: What the user asked for.
        runs: The score sets.
        table: The labels.
        labels: Their file; None if they are columns of the first score set.

    Returns:
        Names of the columns of file and row; None if ids are to be matched instead.

    Raises:
        InputError: If the user asked for places and there are none.
    """
    files = runs[0].files
    same_manifest = all(run.files and run.files == files for run in runs)
    if join == "image_id":
        return None
    if labels is None:
        sure = len(runs) == 1 or same_manifest
        return IDENTITY if sure or join == "identity" else None
    own = PLACE if SIZE in table.column_names else None
    names = {name for name, _ in files or ()}
    if own and same_manifest and _own_files(table) <= set(files or ()):
        return own
    columns = [find_column(table.column_names, key)[0] for key in IDENTITY]
    stored = (columns[0], columns[1]) if all(columns) else None
    fits = stored is not None and _fit(runs, table, stored, names, f"--labels {redact(labels)}")
    if stored and fits and same_manifest:
        return stored
    if join == "auto":
        return None
    if not (own or stored):
        raise InputError(
            f"--join identity needs --labels as Parquet, or with the columns {MANIFEST_FILE} and "
            f"{MANIFEST_ROW}: {redact(labels)} has {column_names(table)}"
        )
    is_own = own and not fits and {name for name, _ in _own_files(table)} <= names
    return own if is_own else stored or own


def _own_files(table: pa.Table) -> set[tuple[str, int]]:
    places = table.group_by([PLACE[0], SIZE]).aggregate([]).to_pylist()
    return {(place[PLACE[0]], place[SIZE]) for place in places}


def _fit(
    runs: Sequence[ScoreSet], table: pa.Table, columns: tuple[str, str], names: set[str], name: str
) -> bool:
    """Return whether columns may hold places of the runs: in the manifest's files, with the same ids."""
    places = read_places(table, columns, name)
    if names and not set(places[MANIFEST_FILE].dropna()) <= names:
        return False
    return all(_ids_agree(run, table, match_places(run, places)[0], name) for run in runs)


def _ids_agree(run: ScoreSet, table: pa.Table, rows: np.ndarray, name: str) -> bool:
    """Return whether matched rows have the same ids, as far as both sides have them."""
    matched = np.flatnonzero(rows >= 0)
    for key in (IMAGE_ID, URI):
        column = find_column(table.column_names, key)[0]
        scores = run.table if key == IMAGE_ID else read_scores(run.uri, [key]).table
        if column and has_values(table, column) and has_values(scores, key):
            theirs = id_texts(scores, key, f"--scores {run.name}").take(matched)
            mine = id_texts(table, column, name).take(rows[matched])
            part = _file_name if key == URI else str
            return all(
                one is None or other is None or part(one) == part(other)
                for one, other in zip(theirs.to_pylist(), mine.to_pylist(), strict=True)
            )
    return True


def _file_name(uri: str) -> str:
    """Return the last part of a URI: one side may be relative, or without its signature."""
    return redact(uri).replace("\\", "/").rstrip("/").rpartition("/")[2]


def read_places(table: pa.Table, columns: tuple[str, str], name: str) -> pd.DataFrame:
    """Return each row's place in the manifest.

    Args:
        table: Of labels or scores.
        columns: Names of its columns of file and row.
        name: The table's name in messages.

    Returns:
        The columns ``manifest_file`` and ``manifest_row``, null where a row has no place.

    Raises:
        InputError: If a place is there twice, or is none.
    """
    values = {}
    for key, source in zip(IDENTITY, columns, strict=True):
        column = table[source]
        if key == MANIFEST_ROW:  # text in CSV, and 3.0 where some rows have none
            column = plain_types(pa.table([column], [key])).column(0)
        try:
            kind = pa.int64() if key == MANIFEST_ROW else pa.string()
            values[key] = pc.cast(column, kind).to_pandas()
        except pa.ArrowException as error:
            raise InputError(f"column {key} of {name} is {column.type}: {error}") from error
    places = pd.DataFrame(values)
    keyed = places[places.notna().all(axis=1)]
    twice = keyed.duplicated()
    if twice.any():
        place = " row ".join(str(part) for part in keyed[twice].iloc[0])
        raise InputError(
            f"{name} has {MANIFEST_FILE} {place!r} more than once: `iqa verify` shows more"
        )
    return places


def match_places(run: ScoreSet, labels: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Match the rows of a score set with those of the labels.

    Args:
        run: The score set.
        labels: Of :func:`read_places`.

    Returns:
        (N,) int64, the row of each score's label, -1 where there is none; and (N,) bool, which scores
        have a place.
    """
    scores = read_places(run.table, IDENTITY, f"--scores {run.name}")
    keyed = labels[labels.notna().all(axis=1)]
    keyed = keyed.astype({MANIFEST_ROW: np.int64}).assign(row=keyed.index)
    rows = scores.merge(keyed, on=[*IDENTITY], how="left")["row"].fillna(-1)
    return rows.to_numpy(np.int64), scores.notna().all(axis=1).to_numpy()
