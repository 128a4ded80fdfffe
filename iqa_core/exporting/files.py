"""Exports to Parquet and CSV, by pyarrow."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from iqa_core.errors import InputError
from iqa_core.exporting.target import new_file, new_folder
from iqa_core.exporting.types import flat_columns, flattened
from iqa_core.redaction import redact
from iqa_core.tables.part_encoding import write_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO

    from iqa_core.exporting.source import FinishedOutput

__all__ = ["ROWS_PER_FILE", "to_csv", "to_parquet", "write_parquet_files"]

#: Rows of one file of a folder, approximately.
ROWS_PER_FILE = 1_000_000
METADATA_KEY = b"iqa.export"


def to_parquet(
    source: FinishedOutput, target: str, append: bool, on_rows: Callable[[int], object]
) -> list[str]:
    """Write one file if the target's name ends in ``.parquet``, else a folder of files.

    The source is in each file's schema metadata, as JSON.
    """
    provenance = source.provenance()
    metadata = {METADATA_KEY: json.dumps(provenance).encode()}
    schema = source.schema.with_metadata(metadata)
    tables = source.tables(on_rows=on_rows)
    if target.endswith(".parquet"):
        with new_file(target) as file:
            _write(file, schema, tables)
        return []
    with new_folder(target, provenance) as folder:
        write_parquet_files(
            lambda n: folder.fs.open(folder.path(f"scores-{n:05d}.parquet"), "wb"), schema, tables
        )
    return []


def write_parquet_files(
    open_file: Callable[[int], IO[bytes]], schema: pa.Schema, tables: Iterable[pa.Table]
) -> int:
    """Write tables to Parquet files of about ``ROWS_PER_FILE`` rows; return the number of files.

    Args:
        open_file: Opens the file of a number, from 0.
        schema: Their columns and metadata.
        tables: The rows.
    """
    waiting = iter(tables)
    table = next(waiting, None)
    number = 0
    while table is not None or number == 0:
        with open_file(number) as file, _writer(file, schema) as writer:
            rows = 0
            while table is not None and rows < ROWS_PER_FILE:
                _write_table(writer, table, schema)
                rows += len(table)
                table = next(waiting, None)
        number += 1
    return number


def _write(file: IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with _writer(file, schema) as writer:
        for table in tables:
            _write_table(writer, table, schema)


def _writer(file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    options = {k: v for k, v in write_options(schema).items() if k != "row_group_size"}
    return pq.ParquetWriter(file, schema, **options)


def _write_table(writer: pq.ParquetWriter, table: pa.Table, schema: pa.Schema) -> None:
    writer.write_table(table.cast(schema), write_options(schema)["row_group_size"])


def to_csv(
    source: FinishedOutput, target: str, append: bool, on_rows: Callable[[int], object]
) -> list[str]:
    """Write one file of delimited text; structs become a column for each field.

    ``TARGET.json`` beside it has the source.

    Raises:
        InputError: If two columns would have one name, or it can't be written.
    """
    held, left_out = flat_columns(source.schema)

    def flat() -> Iterator[pa.Table]:
        for table in source.tables(held, on_rows):
            yield flattened(table.select(held))

    schema = flattened(pa.Table.from_batches([], source.schema).select(held)).schema
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise InputError(
            f"--to csv would have two columns {twice[0]}: a kept one, and a field of the column "
            f"{_struct_of(twice[0], source.schema.names)}; export --to parquet, or score again without "
            "keeping it"
        )
    with new_file(f"{target}.json") as described, new_file(target) as file:
        described.write(json.dumps(source.provenance(), indent=2).encode() + b"\n")
        with pc_csv.CSVWriter(file, schema) as writer:
            for table in flat():
                writer.write_table(table)
    notes = [f"{redact(target)}.json says what it was made from"]
    if left_out:
        notes.append(f"left out, as CSV has no lists or bytes: {', '.join(left_out)}")
    return notes


def _struct_of(name: str, columns: Sequence[str]) -> str:
    """Return the column that has a field of such a name."""
    return next((column for column in columns if name.startswith(f"{column}.")), name)
