"""Scores and labels of the same images, joined row by row; every row left out is accounted for.

A row's identity is its place in the manifest. Where the labels are columns of the very manifest
that was scored, it joins them; elsewhere ``image_id`` does, which then has to be unique.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from iqa_core.files import Folder
from iqa_core.output import PARTS, PLAN
from iqa_core.schema import IDENTITY, IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, InputError, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Join", "Joined", "join_labels"]

Join = Literal["auto", "identity", "image_id"]

_FEWEST = 3  # images; with fewer every correlation is 1, -1 or undefined
_MOST_GROUPS = 200


@dataclass(frozen=True, eq=False)
class Joined:
    """The images that have a label and a score in every set.

    Attributes:
        scores: Score set -> (N,) float64.
        labels: (N,) float64.
        groups: (N,) text, or None.
        clusters: (N,) text, or None.
        join: ``identity`` or ``image_id``.
        rows: Score set -> its rows.
        left_out: Score set -> reason -> rows left out; with N they sum to its rows.
        unscored: Labelled images that no score set has a row of.
    """

    scores: dict[str, np.ndarray]
    labels: np.ndarray
    groups: np.ndarray | None
    clusters: np.ndarray | None
    join: str
    rows: dict[str, int]
    left_out: dict[str, dict[str, int]]
    unscored: int

    def describe(self) -> list[str]:
        """Return a line for each score set that says what became of its rows."""
        lines = []
        for name, rows in self.rows.items():
            reasons = [f"{count:,} {reason}" for reason, count in self.left_out[name].items()]
            left_out = f"; left out: {', '.join(reasons)}" if reasons else ""
            lines.append(f"{name}: {len(self.labels):,} of {rows:,} rows used{left_out}")
        if self.unscored:
            lines.append(f"{self.unscored:,} labelled images are in no score set")
        return lines


def join_labels(
    scores: Sequence[str],
    labels: str | None = None,
    *,
    label_column: str = "mos",
    join: Join = "auto",
    group_column: str | None = None,
    cluster_column: str | None = None,
    where: str | None = None,
) -> Joined:
    """Read the scores of runs and the labels of their images, and join them.

    Args:
        scores: Outputs of ``iqa score``; each is a score set.
        labels: A CSV or TSV file, a Parquet file or a folder of them; None takes the labels from
            the columns that the first score set kept.
        label_column: The column of labels; numbers, null where there is none.
        join: ``identity``, ``image_id``, or the first of the two that is possible.
        group_column: Column to group by, of the labels or else of the first score set.
        cluster_column: Column of what belongs together, found likewise.
        where: ``COLUMN=VALUE``: use only the images with this value, found likewise.

    Returns:
        The images to use, and how many rows were left out why.

    Raises:
        InputError: If something is not there, not unique or not a number, or fewer than three
            images remain.
    """
    kept, _, value = (where or "").partition("=")
    if where is not None and (not kept or "=" not in where):
        raise InputError(f"--where {where} must be COLUMN=VALUE, such as split=test")
    repeated = [one for i, one in enumerate(scores) if one in scores[:i]]
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
    runs = [_read_scores(one, [label_column, *texts.values()]) for one in scores]
    source = runs[0].table if labels is None else _read_labels(labels)
    name = f"--scores {scores[0]}" if labels is None else f"--labels {labels}"
    if label_column not in source.column_names:
        hint = (
            "name one by --label-column, give --labels, or score with --keep"
            if labels is None
            else "name it: --label-column"
        )
        have = _names(source) if labels is not None else ", ".join(runs[0].columns)
        raise InputError(f"{name} has no column {label_column!r}, but {have}: {hint}")
    keys = _choose_keys(join, runs, source, labels)
    table = _key_columns(source, keys, name).assign(label=_numbers(source, label_column, name))
    table = _unique(table, keys, name)
    for option, column in texts.items():
        table = _add_texts(
            table, keys, option, column, [(name, source), (runs[0].name, runs[0].table)]
        )
    frames = {run.name: _score_frame(run, keys) for run in runs}
    joined = _join(frames, table, keys, value if where else None)
    _check_size(joined, group_column, cluster_column)
    return joined


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    name: str
    table: pa.Table  # identity, image_id, status, score, and the kept columns asked for
    files: list[tuple[str, int]] | None  # of the manifest: name and size, if the plan tells
    columns: list[str]  # all that may hold labels, read or not


def _read_scores(uri: str, columns: Sequence[str]) -> _Run:
    folder = Folder.given(uri, "scores")
    parts = folder.list(PARTS)
    if not parts:
        raise InputError(f"--scores {uri} holds no {PARTS}: give the output of `iqa score`")
    wanted = [*IDENTITY, IMAGE_ID, "status", "score", *dict.fromkeys(columns)]
    tables = []
    for part in parts:
        try:
            with folder.fs.open(folder.path(part), "rb") as handle:
                file = pq.ParquetFile(handle)
                have = file.schema_arrow.names
                tables.append(file.read([one for one in dict.fromkeys(wanted) if one in have]))
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"--scores {uri}: {part} can't be read ({error}): restore it, or score again"
            ) from error
        missing = {*IDENTITY, "status", "score"} - set(have)
        if missing:
            raise InputError(
                f"--scores {uri}: {part} has no column {min(missing)!r}: give the output of "
                "`iqa score`"
            )
    table = pa.concat_tables(tables, promote_options="default")
    try:
        files = [(file["name"], file["size"]) for file in folder.read_json(PLAN)["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        files = None
    return _Run(uri, table, files, [one for one in have if one not in _NO_LABELS])


_NO_LABELS = {"uri", "error", "scores", "margins", "embedding", "views", "view_levels"}


def _read_labels(uri: str) -> pa.Table:
    return _read_csv(uri) if uri.lower().endswith((".csv", ".tsv")) else _read_parquet(uri)


def _read_csv(uri: str) -> pa.Table:
    try:
        with fsspec.open(uri, "rb") as file:
            return pyarrow.csv.read_csv(
                io.BytesIO(file.read()),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter="\t" if uri.lower().endswith(".tsv") else ",",
                    newlines_in_values=True,
                ),
                # 00012 is an id, not the number twelve
                convert_options=pyarrow.csv.ConvertOptions(column_types={IMAGE_ID: pa.string()}),
            )
    except (OSError, ImportError, ValueError, pa.ArrowException) as error:
        raise InputError(f"--labels {uri} can't be read: {' '.join(str(error).split())}") from error


def _read_parquet(uri: str) -> pa.Table:
    """Read a Parquet file or folder, with each row's place as a manifest's row has it."""
    folder = Folder.given(uri, "labels")
    if folder.fs.isfile(folder.root):
        parent, _, name = folder.root.rpartition("/")
        folder, names = Folder(parent, folder.fs, parent), [name]
    else:
        names = [
            one
            for one in folder.list("**/*.parquet")
            if not any(part.startswith(("_", ".")) for part in one.split("/"))
        ]
    if not names:
        raise InputError(
            f"--labels {uri} is neither a Parquet or CSV file nor a folder of Parquet files"
        )
    tables = []
    for name in names:
        try:
            with folder.fs.open(folder.path(name), "rb") as handle:
                file = pq.ParquetFile(handle)
                # an image column would be the whole data set
                columns = [field.name for field in file.schema_arrow if _is_small(field.type)]
                table = file.read(columns)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"--labels {uri}: {name} can't be read: {error}") from error
        if MANIFEST_FILE not in table.column_names:
            size = int(folder.fs.size(folder.path(name)) or 0)
            table = table.append_column(_PLACE[0], pa.array([name] * len(table), pa.string()))
            table = table.append_column(_PLACE[1], pa.array(range(len(table)), pa.int64()))
            table = table.append_column(_SIZE, pa.array([size] * len(table), pa.int64()))
        tables.append(table)
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise InputError(
            f"--labels {uri}: its files have different columns ({error}): give one of them"
        ) from error


_PLACE = ("_place_file", "_place_row")
_SIZE = "_place_size"


def _is_small(kind: pa.DataType) -> bool:
    return not (
        pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def _names(table: pa.Table) -> str:
    return ", ".join(name for name in table.column_names if not name.startswith("_place"))


# Columns ------------------------------------------------------------------------------------------


def _choose_keys(
    join: Join, runs: Sequence[_Run], source: pa.Table, labels: str | None
) -> list[str]:
    """Return the columns that join: the identity where it is sure to mean the same rows."""
    names = source.column_names
    same_manifest = all(run.files and run.files == runs[0].files for run in runs)
    if labels is None:
        sure, possible = len(runs) == 1 or same_manifest, True
    elif MANIFEST_FILE in names and MANIFEST_ROW in names:
        sure = possible = True
    else:
        possible = _SIZE in names
        sure = possible and same_manifest and runs[0].files == _files(source)
    if join == "identity" or (join == "auto" and sure):
        if not possible:
            raise InputError(
                f"--join identity needs --labels as Parquet, or with the columns {MANIFEST_FILE} and "
                f"{MANIFEST_ROW}: {labels} has {_names(source)}"
            )
        return [*IDENTITY]
    where = f"--labels {labels}" if labels else f"--scores {runs[0].name}"
    tables = [(where, source), *((f"--scores {run.name}", run.table) for run in runs)]
    for name, table in tables:
        if IMAGE_ID not in table.column_names or table[IMAGE_ID].null_count == len(table):
            reason = "" if join == "image_id" else " and these are not rows of one manifest"
            raise InputError(
                f"{name} has no {IMAGE_ID}{reason}: add one, or give the manifest that was scored as "
                "--labels"
            )
    return [IMAGE_ID]


def _files(source: pa.Table) -> list[tuple[str, int]]:
    places = source.group_by([_PLACE[0], _SIZE]).aggregate([]).to_pylist()
    return sorted((one[_PLACE[0]], one[_SIZE]) for one in places)


def _key_columns(table: pa.Table, keys: list[str], name: str) -> pd.DataFrame:
    places = dict(zip(IDENTITY, _PLACE, strict=True))
    columns = {}
    for key in keys:
        found = key if key in table.column_names else places[key]
        kind = pa.int64() if key == MANIFEST_ROW else pa.string()
        try:
            columns[key] = pc.cast(table[found], kind).to_pandas()
        except pa.ArrowException as error:
            raise InputError(f"column {key} of {name} is {table[found].type}: {error}") from error
    return pd.DataFrame(columns)


def _numbers(table: pa.Table, column: str, name: str) -> np.ndarray:
    kind = table[column].type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not number and not pa.types.is_null(kind):
        raise InputError(
            f"column {column!r} of {name} is {kind}, but labels must be numbers, empty where there "
            "is none: name another with --label-column"
        )
    values = pc.cast(table[column], pa.float64(), safe=False).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _add_texts(
    table: pd.DataFrame,
    keys: list[str],
    option: str,
    column: str,
    sources: Sequence[tuple[str, pa.Table]],
) -> pd.DataFrame:
    """Add a column as text, from the first table that has it; null where it has no such row."""
    name, source = next((one for one in sources if column in one[1].column_names), ("", None))
    if source is None:
        have = " and ".join(f"{name} has {_names(one)}" for name, one in dict(sources).items())
        raise InputError(f"--{option} {column!r} is no column: {have}")
    try:
        texts = pc.cast(source[column], pa.string()).to_pandas()
    except pa.ArrowException as error:
        raise InputError(
            f"--{option} {column!r} of {name} is {source[column].type}: name a column of text or "
            "numbers"
        ) from error
    added = _unique(_key_columns(source, keys, name).assign(**{option: texts}), keys, name)
    return table.merge(added, on=keys, how="left")


def _score_frame(run: _Run, keys: list[str]) -> pd.DataFrame:
    name = f"--scores {run.name}"
    frame = _key_columns(run.table, keys, name)
    _unique(frame, keys, name)
    scored = pc.equal(run.table["status"], Status.OK.value).to_pandas()
    return frame.assign(score=np.where(scored, _numbers(run.table, "score", name), np.nan))


def _unique(table: pd.DataFrame, keys: list[str], name: str) -> pd.DataFrame:
    """Return the rows that have a key; each key may be there once."""
    table = table[table[keys].notna().all(axis=1)]
    twice = table.duplicated(keys)
    if twice.any():
        key = " row ".join(str(one) for one in table.loc[twice, keys].iloc[0])
        fix = (
            "give the manifest that was scored as --labels, which joins by place"
            if keys == [IMAGE_ID]
            else "`iqa verify` tells more"
        )
        raise InputError(f"{name} has {keys[0]} {key!r} more than once: {fix}")
    return table


# Joining ------------------------------------------------------------------------------------------


def _join(
    frames: dict[str, pd.DataFrame], table: pd.DataFrame, keys: list[str], value: str | None
) -> Joined:
    checks = [(table["label"].isna(), "without a label")]
    if value is not None:
        checks.append((table["where"] != value, "outside of --where"))
    if "resample-by" in table:
        checks.append((table["resample-by"].isna(), "without a --resample-by value"))
    masks, names = zip(*checks, strict=True)
    table = table.assign(reject=np.select(masks, names, ""))
    usable = used = table[table["reject"] == ""]
    for i, frame in enumerate(frames.values()):
        scored = frame[frame["score"].notna()].rename(columns={"score": f"score {i}"})
        used = used.merge(scored, on=keys)
    left_out = {name: _account(frame, table, keys, len(used)) for name, frame in frames.items()}
    present = pd.concat([frame[keys] for frame in frames.values()]).drop_duplicates()
    seen = len(usable.merge(present, on=keys))
    return Joined(
        scores={name: used[f"score {i}"].to_numpy() for i, name in enumerate(frames)},
        labels=used["label"].to_numpy(),
        groups=used["by"].fillna("(none)").to_numpy(dtype=str) if "by" in used else None,
        clusters=used["resample-by"].to_numpy(dtype=str) if "resample-by" in used else None,
        join="identity" if len(keys) > 1 else IMAGE_ID,
        rows={name: len(frame) for name, frame in frames.items()},
        left_out=left_out,
        unscored=len(usable) - seen,
    )


def _account(
    frame: pd.DataFrame, table: pd.DataFrame, keys: list[str], used: int
) -> dict[str, int]:
    """Return how many rows of a score set are left out, by the first reason of each."""
    rows = frame.merge(table[[*keys, "reject"]], on=keys, how="left")
    reason = np.select(
        [rows["score"].isna(), frame[keys].isna().any(axis=1), rows["reject"].isna()],
        ["not scored", f"without {keys[0]}", "without a row in the labels"],
        rows["reject"].fillna(""),
    )
    names, counts = np.unique(reason.astype(str), return_counts=True)
    left_out = {str(name): int(count) for name, count in zip(names, counts, strict=True) if name}
    elsewhere = len(rows) - sum(left_out.values()) - used
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
