"""Exports to tables of Lance, Delta Lake and Iceberg: one atomic commit, by their own libraries."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.errors import InputError
from iqa_core.exporting.types import cast_tables, refused_columns, table_format_schema
from iqa_core.redaction import error_line, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.exporting.source import FinishedOutput

__all__ = ["to_delta", "to_iceberg", "to_lance"]

#: Of an append to Iceberg, which is in memory as a whole.
_APPEND_BYTES = 2**28


def to_lance(
    source: FinishedOutput, target: str, append: bool, on_rows: Callable[[int], object]
) -> list[str]:
    """Write a data set of Lance; the source is in its schema metadata."""
    import lance

    if not append:
        _refuse_if(target, lambda: lance.dataset(target), (ValueError, OSError))
    schema = source.schema.with_metadata(source.properties())
    with _errors_as_input_errors(target):
        reader = _reader(schema, source.tables(on_rows=on_rows))
        lance.write_dataset(reader, target, mode="append" if append else "create")
    return []


def to_delta(
    source: FinishedOutput, target: str, append: bool, on_rows: Callable[[int], object]
) -> list[str]:
    """Write a table of Delta Lake; the source is in the metadata of its commit."""
    import deltalake

    with _errors_as_input_errors(target):
        exists = deltalake.DeltaTable.is_deltatable(target)
    if exists and not append:
        raise _exists(target)
    schema = table_format_schema(source.schema)
    if refused := refused_columns(schema, deltalake.Schema.from_arrow):
        columns = ", ".join(f"{name} ({source.schema.field(name).type})" for name in refused)
        raise InputError(
            f"--to delta has no type for the kept {columns}: export --to parquet, or score again "
            "without keeping them"
        )
    properties = deltalake.CommitProperties(custom_metadata=source.properties())
    with _errors_as_input_errors(target):
        deltalake.write_deltalake(
            target,
            _reader(schema, cast_tables(source.tables(on_rows=on_rows), schema)),
            mode="append" if append else "error",
            name="image quality scores",
            commit_properties=properties,
        )
    return []


def to_iceberg(
    source: FinishedOutput, target: str, append: bool, on_rows: Callable[[int], object]
) -> list[str]:
    """Write a table of an Iceberg catalogue; the source is in its properties.

    ``target`` is ``CATALOG.NAMESPACE.TABLE``; PyIceberg's own configuration says where the catalogue is.
    """
    from pyiceberg.catalog import load_catalog

    name, _, identifier = target.partition(".")
    if not name or "." not in identifier:
        raise InputError(
            argument="output",
            value=target,
            limit="CATALOG.NAMESPACE.TABLE",
            fix="name a catalogue of PyIceberg's configuration (.pyiceberg.yaml)",
        )
    schema = table_format_schema(source.schema)
    with _errors_as_input_errors(target):
        catalog = load_catalog(name)
        exists = catalog.table_exists(identifier)
    if exists and not append:
        raise _exists(target)
    with _errors_as_input_errors(target):
        if exists:
            transaction = catalog.load_table(identifier).transaction()
        else:
            transaction = catalog.create_table_transaction(
                identifier, schema=schema, properties=source.properties()
            )
        with transaction:  # each append writes its files; the end commits them all at once
            for table in _large(cast_tables(source.tables(on_rows=on_rows), schema)):
                transaction.append(table)
    return []


def _reader(schema: pa.Schema, tables: Iterator[pa.Table]) -> pa.RecordBatchReader:
    batches = (batch for table in tables for batch in table.cast(schema).to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)


def _large(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of about ``_APPEND_BYTES``: each append leaves a snapshot."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(part.nbytes for part in waiting) >= _APPEND_BYTES:
            yield pa.concat_tables(waiting)
            waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)


def _exists(target: str) -> InputError:
    return InputError(
        f"--output {redact(target)} exists: give --append, or another place for a new table"
    )


def _refuse_if(
    target: str, opening: Callable[[], object], absent: tuple[type[Exception], ...]
) -> None:
    try:
        opening()
    except absent:
        return
    raise _exists(target)


@contextmanager
def _errors_as_input_errors(target: str) -> Iterator[None]:
    """Raise what a library raises as one line; nothing is committed then."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever four libraries and their stores can raise
        raise InputError(
            f"--output {redact(target)} can't be written ({type(error).__name__}: "
            f"{error_line(error)}): nothing was committed; fix this and run it again"
        ) from error
