"""Delimited text as spreadsheets, databases and scripts write it: one reader for lists and labels.

Every column is read as text, so that nothing is lost before it is known what a column means:
``00012`` is an id, not the number twelve. :func:`iqa_core.tables.text_types.plain_types` turns columns
into numbers where nothing is lost by it.
"""

from __future__ import annotations

import csv
import io
import itertools
import lzma
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.errors import InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.encodings import find_encoding, printable
from iqa_core.storage.folder import has_scheme
from iqa_core.storage.retry import retried

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["DelimitedTable", "parse_delimited", "read_delimited", "read_whole"]

#: On a tie the first is taken: commas are the most frequent inside the names of columns.
_DELIMITERS = ("\t", ";", "|", ",")
_NAMES = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas"}
_BATCH_ROWS = 50_000
_SAMPLE = 1 << 18
_SAVE = "save it as CSV UTF-8"
#: Errors of damaged compressed files; IndexError of an empty ZIP archive, RuntimeError of an encrypted one.
_DAMAGED = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, IndexError, RuntimeError)
#: First bytes, in lower case, of files that are not delimited text; what they are; what to do.
_OTHER_KINDS = (
    (b"pk\x03\x04", "an Excel workbook or another ZIP archive", _SAVE),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", _SAVE),
    (b"\x1f\x8b", "compressed by gzip", "let its name end in .gz"),
    (b"par1", "a Parquet file", "let its name end in .parquet"),
    (b"%pdf", "a PDF file", _SAVE),
    (b"{\\rtf", "a document of rich text", _SAVE),
    (b"<", "an HTML or XML page, such as a server's log-in or error page", "fetch the file itself"),
    (b"{", "JSON", _SAVE),
    (b"[", "JSON", _SAVE),
)


@dataclass(frozen=True, eq=False)
class DelimitedTable:
    """A table of text.

    Attributes:
        table: Columns of type string, null where a cell is empty or blank; names without blanks
            around them, each of them once. Other cells are as they were written.
        encoding: How the file was decoded; see :func:`iqa_core.storage.encodings.find_encoding`.
        delimiter: The character between the cells.
        notes: What was recognised that differs from plain UTF-8 with commas, such as
            "read as windows-1252"; printed after the file's name.
    """

    table: pa.Table
    encoding: str
    delimiter: str
    notes: list[str] = field(default_factory=list)


def read_delimited(uri: str, argument: str = "") -> DelimitedTable:
    """Read a file of delimited text, such as CSV, whole.

    Args:
        uri: Path or URI; compressed if its name ends in ``.gz``, ``.bz2``, ``.xz`` or ``.zip``.
        argument: The option that the user named it in, such as ``--labels``, for messages.

    Returns:
        The table and how it was read.

    Raises:
        InputError: If it can't be read, or is no such table: another kind of file, without a line
            of column names, with a column name twice, or with rows of differing lengths.
    """
    shown = f"{argument} {redact(uri)}".strip()
    return parse_delimited(read_whole(uri, shown), shown)


def read_whole(uri: str, shown: str) -> bytes:
    """Return the content of a file, decompressed as its name tells.

    Args:
        uri: Path or URI; compressed as in :func:`read_delimited`.
        shown: The file's name for messages.

    Raises:
        InputError: If it can't be read, or is damaged.
    """
    try:
        source = fsspec.open(uri, "rb", compression="infer")

        def read() -> bytes:
            with source as file:
                content: bytes = file.read()
                return content

        return retried(read) if has_scheme(uri) else read()
    except FileNotFoundError as error:
        raise InputError(f"{shown} does not exist: check the path") from error
    except (OSError, ImportError, ValueError, EOFError, *_DAMAGED) as error:
        raise InputError(f"{shown} can't be read: {error_line(error)}") from error


def parse_delimited(data: bytes, shown: str) -> DelimitedTable:
    """Parse the content of a file of delimited text.

    Args:
        data: The content.
        shown: The file's name for messages.

    Raises:
        InputError: As :func:`read_delimited`.
    """
    _check_kind(data, shown)
    try:
        encoding = find_encoding(data)
    except ValueError as error:
        raise InputError(f"{shown} {error}") from error
    text = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    records = _Records(text, data[:_SAMPLE].decode(encoding, "ignore"), shown)
    names = records.read_names()
    table, empty = _read_rows(records, names)
    notes = _notes(encoding, records.delimiter, empty, shown)
    table, unnamed = _name_columns(table, names)
    return DelimitedTable(table, encoding, records.delimiter, notes + unnamed)


def _check_kind(data: bytes, shown: str) -> None:
    start = data.removeprefix(b"\xef\xbb\xbf")[:1000].lstrip().lower()
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf\xfe\xff"):
        raise InputError(f"{shown} is empty: give a file with a line of column names and rows")
    for first, kind, fix in _OTHER_KINDS:
        if start.startswith(first):
            raise InputError(f"{shown} is {kind}, but must be delimited text (CSV): {fix}")


class _Records:
    """The records of a file, with the line in which each begins.

    Args:
        text: The file, which keeps its line ends.
        sample: The beginning of it.
        shown: Its name for messages.
    """

    def __init__(self, text: io.TextIOWrapper, sample: str, shown: str) -> None:
        self.shown = shown
        self._skipped = 0  # lines before those that the reader counts
        head = self._read_head(text)
        self.delimiter = ","
        directive = head.strip().strip('"').lower()
        if directive.startswith("sep=") and len(directive) <= 5:  # "sep=" alone: of the tab
            self.delimiter = directive[4:] or "\t"
            self._skipped += head.count("\n") or head.count("\r")
            head = self._read_head(text)
        else:
            self.delimiter = _recognise_delimiter(head, sample.partition(head)[2])
        lines = itertools.chain(io.StringIO(head, newline=""), text)
        # A blank before a quotation mark would make the mark a part of the cell.
        blanks = f'{self.delimiter} "' in sample
        self._reader = csv.reader(
            lines, delimiter=self.delimiter, strict=True, skipinitialspace=blanks
        )
        self.line = self._skipped + 1

    def _read_head(self, text: io.TextIOWrapper) -> str:
        """Return the first record that is not blank, as it is written."""
        head = ""
        for line in text:
            if not head and not line.strip("\ufeff \t\r\n\x1a"):
                self._skipped += 1
                continue
            head += line
            if head.count('"') % 2 == 0:
                break
        return head

    def __iter__(self) -> Iterator[list[str]]:
        """Yield each record; ``line`` is where it begins."""
        while True:
            self.line = self._skipped + self._reader.line_num + 1
            try:
                record = next(self._reader, None)
            except csv.Error as error:
                raise InputError(
                    f"{self.shown} can't be read at line {self.line:,}: {error}; is a quotation mark "
                    "not closed, or not doubled inside of quotation marks?"
                ) from error
            if record is None:
                return
            yield record

    def read_names(self) -> list[str]:
        """Return the names of the columns, without blanks around; they may be empty.

        Raises:
            InputError: If a name is there twice, or none is.
        """
        names = [name.strip().strip("\ufeff").strip() for name in next(iter(self), [])]
        twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
        if twice:
            raise InputError(
                f"{self.shown} has the column {twice[0]!r} {names.count(twice[0])} times: rename or "
                "remove all but one"
            )
        if not any(names):
            raise InputError(f"{self.shown} has no line of column names: add it at the top")
        return names


def _recognise_delimiter(head: str, rest: str) -> str:
    """Return the delimiter that is most frequent outside of quotation marks.

    Args:
        head: The record of column names, which decides.
        rest: What follows, whose first line decides between equally frequent ones.
    """
    bare, second = ("".join(text.split('"')[::2]) for text in (head, rest.lstrip().split("\n")[0]))
    best = max(_DELIMITERS, key=lambda sign: (bare.count(sign), min(second.count(sign), 1)))
    return best if best in bare else ","


def _read_rows(records: _Records, names: Sequence[str]) -> tuple[pa.Table, int]:
    """Return the rows as text, and the number of rows that had no value."""
    width = len(names)
    batches: list[pa.RecordBatch] = []
    rows: list[list[str]] = []
    schema = pa.schema([(str(i), pa.string()) for i in range(width)])
    empty = blank = 0
    for record in records:
        if not "".join(record).strip("\x1a \t\r\n\xa0"):
            blank += 1
            empty += blank if len(record) > 1 else 0
            blank = 0 if len(record) > 1 else blank
            continue
        empty += blank  # blank lines at the very end are no rows
        blank = 0
        rows.append(_check_width(record, names, records))
        if len(rows) == _BATCH_ROWS:
            batches.append(_batch(rows, schema))
            rows = []
    if rows:
        batches.append(_batch(rows, schema))
    return pa.Table.from_batches(batches, schema), empty


def _check_width(record: list[str], names: Sequence[str], records: _Records) -> list[str]:
    width = len(names)
    if len(record) == width:
        return record
    if len(record) > width and not any(record[width:]):  # delimiters after the last cell
        return record[:width]
    columns = ", ".join(name or "(no name)" for name in names)
    more = "put cells that contain the delimiter in quotation marks"
    less = "is it cut short? Rows must have a cell, empty if need be, for each column"
    raise InputError(
        f"line {records.line:,} of {records.shown} has {len(record)} of {width} cells "
        f"('{_shorten(records.delimiter.join(record))}'; the columns are {_shorten(columns)}), "
        f"separated by {_NAMES.get(records.delimiter, repr(records.delimiter))}: "
        f"{more if len(record) > width else less}"
    )


def _shorten(text: str) -> str:
    return printable(text if len(text) <= 80 else f"{text[:77]}...")


def _batch(rows: list[list[str]], schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    blank = [pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0) for column in columns]
    null = pa.scalar(None, pa.string())
    cells = [pc.if_else(no, null, column) for no, column in zip(blank, columns, strict=True)]
    return pa.RecordBatch.from_arrays(cells, schema=schema)


def _name_columns(table: pa.Table, names: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Name the columns; a column without a name is dropped if empty, else named by its number."""
    notes = []
    chosen: list[str] = []
    for number, name in enumerate(names, start=1):
        column = table.column(str(number - 1))
        if not name and column.null_count == len(column):
            chosen.append("")
            continue
        new = name or f"column_{number}"
        while not name and new in names:
            new += "_"
        if not name:
            notes.append(f"column {number} has no name and is called {new}")
        chosen.append(new)
    kept = [i for i, name in enumerate(chosen) if name]
    return table.select(kept).rename_columns([chosen[i] for i in kept]), notes


def _notes(encoding: str, delimiter: str, empty: int, shown: str) -> list[str]:
    notes = []
    if encoding in ("windows-1252", "mac_roman"):
        notes.append(f"read as {encoding}, as it is not UTF-8: save it as UTF-8 if names are wrong")
    elif not encoding.startswith("utf-8"):
        notes.append(f"read as {encoding.upper()}")
    if delimiter != ("\t" if ".tsv" in PurePosixPath(shown.lower()).suffixes else ","):
        notes.append(f"columns separated by {_NAMES.get(delimiter, repr(delimiter))}")
    if empty:
        notes.append(f"{empty:,} empty {'row' if empty == 1 else 'rows'} left out")
    return notes
