"""Reads the two inputs of an evaluation: outputs of ``iqa score``, and files of opinion scores."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.columns import (
    ERROR,
    IDENTITY,
    IMAGE_ID,
    MARGINS,
    SCORE,
    SCORES,
    STATUS,
    URI,
    Kind,
    Reader,
    names_of,
    required_by,
)
from iqa_core.errors import InputError
from iqa_core.evaluation.labels.columns import find_column
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.delimited import parse_delimited, read_delimited
from iqa_core.tables.parts import PARTS, PartFiles
from iqa_core.tables.plan import PLAN

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PLACE", "SIZE", "LabelTable", "ScoreSet", "read_labels", "read_scores"]

#: Columns of each row's place in a Parquet file or folder, and of its file's size.
PLACE = ("_place_file", "_place_row")
SIZE = "_place_size"

_DELIMITED = (".csv", ".tsv", ".txt", ".tab")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_WORKBOOKS = (".xlsx", ".xlsm")
#: Other file formats, and what to do with them.
_NOT_READ = {
    ".xls": "save it as .xlsx or as CSV UTF-8",
    ".xlsb": "save it as .xlsx or as CSV UTF-8",
    ".ods": "save it as .xlsx or as CSV UTF-8",
    ".mat": "`iqa manifest` reads those of known benchmark releases; write others to CSV",
    ".json": "convert it, such as by pandas.read_json(FILE).to_csv('labels.csv', index=False)",
    **dict.fromkeys(
        (".jsonl", ".ndjson"),
        "convert it, such as by pandas.read_json(FILE, lines=True).to_csv('labels.csv', index=False)",
    ),
}
#: A binary column of longer values on average holds images, not ids.
_MOST_BYTES = 1024
#: Columns of the output that are neither numbers nor names to match by.
_NO_LABELS = {URI, ERROR, SCORES, MARGINS, *names_of(Kind.FEATURE, Kind.VIEW)}


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """The output of one run.

    Attributes:
        uri: Its folder as the user gave it, which may hold a password; only for opening files.
        name: The URI without secrets, for keys and messages.
        table: Identity, ``image_id``, ``status``, ``score``, and the kept columns asked for.
        files: Name and size of the manifest's files, if the plan has them.
        columns: All columns that may hold labels, read or not.
    """

    uri: str = field(repr=False)
    name: str
    table: pa.Table
    files: list[tuple[str, int]] | None
    columns: list[str]


@dataclass(frozen=True, eq=False)
class LabelTable:
    """A table of opinions.

    Attributes:
        table: Its columns, of plain types: no dictionaries, views or large strings.
        notes: How the file was read, where that is not obvious.
        is_text: Whether every column is text, because the file's format has no types.
        delimiter: The character between the cells; empty if unknown.
    """

    table: pa.Table
    notes: list[str] = field(default_factory=list)
    is_text: bool = False
    delimiter: str = ""


# Scores -------------------------------------------------------------------------------------------


def read_scores(uri: str, columns: Sequence[str], pair: str | None = None) -> ScoreSet:
    """Read the output of ``iqa score``.

    Args:
        uri: Its folder.
        columns: Kept columns to read as well, where they exist.
        pair: Name of the prompt pair whose scores are read instead of the image scores.

    Raises:
        InputError: If it is none, or can't be read.
    """
    folder = Folder.given(uri, "scores")
    shown = redact(uri)
    parts = PartFiles(folder, f"--scores {shown}", "restore it, or score again")
    names = parts.names()
    if not names:
        raise InputError(f"--scores {shown} holds no {PARTS}: give the output of `iqa score`")
    required = required_by(Reader.EVALUATION)
    tables = []
    for name in names:
        with parts.open(name) as part:
            have = part.schema().names
            _check_names(have, f"--scores {shown}: {name}")
            missing = [column for column in required if column not in have]
            if missing:
                raise InputError(
                    f"--scores {shown}: {name} has no column {min(missing)!r}: give the output of "
                    "`iqa score`"
                )
            kept = [find_column(have, column)[0] for column in columns]
            wanted = dict.fromkeys([*IDENTITY, IMAGE_ID, STATUS, SCORE, *kept])
            if pair is not None:
                wanted[SCORES] = None
            read = part.read([name for name in wanted if name in have])
            tables.append(_plain_table(read if pair is None else _of_pair(read, pair, shown)))
    table = pa.concat_tables(tables, promote_options="default")
    try:
        files = [(file["name"], file["size"]) for file in folder.read_json(PLAN)["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        files = None
    return ScoreSet(uri, shown, table, files, [name for name in have if name not in _NO_LABELS])


def _of_pair(table: pa.Table, pair: str, name: str) -> pa.Table:
    """Return a table whose image scores are those of one pair."""
    names = []
    if SCORES in table.column_names:
        names = [field.name for field in table.schema.field(SCORES).type]
    if pair not in names:
        raise InputError(
            f"--pair {pair!r} is no prompt pair of --scores {name}, which has {', '.join(names) or 'none'}"
        )
    values = pc.struct_field(table[SCORES], pair)
    place = table.column_names.index(SCORE)
    return table.set_column(place, SCORE, values).drop_columns([SCORES])


# Labels -------------------------------------------------------------------------------------------


def read_labels(uri: str) -> LabelTable:
    """Read a file of opinion scores, except columns of images.

    Args:
        uri: Path or URI of a file of delimited text, an Excel workbook, a Parquet file, or a folder
            of Parquet files.

    Raises:
        InputError: If it is none of these, or can't be read.
    """
    suffix = _suffix(uri)
    if suffix in _DELIMITED:
        read = read_delimited(uri, "--labels")
        return LabelTable(read.table, read.notes, True, read.delimiter)
    if suffix in _WORKBOOKS:
        return _read_workbook(uri)
    if suffix in _NOT_READ:
        raise InputError(
            f"--labels {redact(uri)} is neither CSV, .xlsx nor Parquet: {_NOT_READ[suffix]}"
        )
    return LabelTable(_read_parquet(uri))


def _suffix(uri: str) -> str:
    path = uri.partition("?")[0] if has_scheme(uri) else uri
    name = path.rstrip("/").rpartition("/")[2].lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def _read_workbook(uri: str) -> LabelTable:
    """Read the first sheet of an Excel workbook, as if it had been exported as CSV."""
    shown = f"--labels {redact(uri)}"
    if importlib.util.find_spec("openpyxl") is None:
        raise InputError(
            f"{shown} needs openpyxl: pip install 'distributed-iqa[releases]', or save it as CSV UTF-8"
        )
    try:
        with fsspec.open(uri, "rb") as file, pd.ExcelFile(file, engine="openpyxl") as book:
            names = book.sheet_names
            cells = pd.read_excel(book, header=None, dtype=object, na_filter=False)
    except Exception as error:  # zipfile's, XML's, openpyxl's own
        message = error_line(error)
        raise InputError(f"{shown} can't be read: {message}") from error
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["sep=,"])
    rows = ([_cell_text(cell) for cell in row] for row in cells.itertuples(index=False))
    writer.writerows(itertools.dropwhile(lambda row: not any(row), rows))
    read = parse_delimited(text.getvalue().encode(), shown)
    others = [f"only its first sheet, {names[0]!r}, is read of {len(names)}"] if names[1:] else []
    return LabelTable(read.table, others + read.notes, True)


def _cell_text(cell: object) -> str:
    """Return a cell as in CSV; numbers with a decimal point and all their digits."""
    if isinstance(cell, float):
        return "" if cell != cell else str(int(cell)) if cell.is_integer() else repr(cell)
    return str(cell)


def _read_parquet(uri: str) -> pa.Table:
    """Read a Parquet file or folder, with each row's file and row number as in a manifest."""
    folder = Folder.given(uri, "labels")
    if folder.fs.isfile(folder.root):
        parent, _, name = folder.root.rpartition("/")
        folder, names = Folder(parent, folder.fs, parent), [name]
    else:
        names = [
            name
            for name in folder.list("**/*.parquet")
            if not any(part.startswith(("_", ".")) for part in name.split("/"))
        ]
    if not names:
        raise InputError(
            f"--labels {redact(uri)} is neither a Parquet or CSV file nor a folder of Parquet files"
        )
    tables = []
    for name in names:
        try:
            with folder.fs.open(folder.path(name), "rb") as handle:
                file = pq.ParquetFile(handle)
                _check_names(file.schema_arrow.names, f"--labels {redact(uri)}: {name}")
                table = _plain_table(file.read(_small_columns(file)))
        except (OSError, pa.ArrowException) as error:
            message = error_line(error)
            raise InputError(f"--labels {redact(uri)}: {name} can't be read: {message}") from error
        size = int(folder.fs.size(folder.path(name)) or 0)
        table = table.append_column(PLACE[0], pa.array([name] * len(table), pa.string()))
        table = table.append_column(PLACE[1], pa.array(range(len(table)), pa.int64()))
        tables.append(table.append_column(SIZE, pa.array([size] * len(table), pa.int64())))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(
            f"--labels {redact(uri)}: its files have different columns "
            f"({' '.join(str(error).split())}): give one of them"
        ) from error


def _check_names(names: Sequence[str], file: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{file} has the column {twice[0]!r} {names.count(twice[0])} times: rename or remove all "
            "but one"
        )


def _small_columns(file: pq.ParquetFile) -> list[str]:
    """Return the columns that may be read whole: an image column would be the whole data set."""
    names = []
    for field_ in file.schema_arrow:
        if pa.types.is_nested(field_.type) or (
            _is_bytes(field_.type) and _average_bytes(file, field_.name) > _MOST_BYTES
        ):
            continue
        names.append(field_.name)
    return names


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def _average_bytes(file: pq.ParquetFile, name: str) -> float:
    total = 0
    for i in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(i)
        for j in range(group.num_columns):
            if group.column(j).path_in_schema == name:
                total += group.column(j).total_uncompressed_size
    return float(total / max(file.metadata.num_rows, 1))


def _plain_table(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries, views and large strings; text may have been binary."""
    for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array(
                [chunk.storage for chunk in column.chunks], column.type.storage_type
            )
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if _is_text(column.type):
            column = column.cast(pa.string())
        elif _is_bytes(column.type):
            with suppress(pa.ArrowInvalid):  # not UTF-8, so not text
                column = column.cast(pa.binary()).cast(pa.string())
        table = table.set_column(i, name, column)
    return table


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_large_string, pa.types.is_string_view))
