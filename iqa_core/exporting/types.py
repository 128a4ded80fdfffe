"""Types that not every format holds, and those to take instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "cast_tables",
    "flat_columns",
    "flattened",
    "python_rows",
    "refused_columns",
    "table_format_schema",
    "table_format_type",
]

#: Of whole numbers without a sign, which table formats lack: the next larger with one.
_SIGNED = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}


def table_format_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that Delta Lake and Iceberg hold for another.

    It is float32 for float16, a list of any length for one of fixed length, microseconds for nanoseconds,
    the same instants in UTC for those of another zone, and the next signed integer for an unsigned one.

    >>> table_format_type(pa.list_(pa.float16(), 512))
    ListType(list<element: float>)
    """
    if pa.types.is_dictionary(kind):
        return table_format_type(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([field.with_type(table_format_type(field.type)) for field in fields])
    if any(check(kind) for check in _LISTS):
        return pa.list_(pa.field("element", table_format_type(kind.value_type)))
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz and "UTC")
    if pa.types.is_float16(kind):
        return pa.float32()
    return _SIGNED.get(kind, pa.int64() if kind == pa.uint64() else kind)


_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def table_format_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema of types that Delta Lake and Iceberg hold."""
    return pa.schema(
        [field.with_type(table_format_type(field.type)).remove_metadata() for field in schema]
    )


def cast_tables(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables cast to a schema.

    Raises:
        InputError: If a value does not fit.
    """
    for table in tables:
        try:
            yield table.cast(schema)
        except pa.ArrowException as error:
            raise InputError(
                f"a value of --scores does not fit the format's types "
                f"({' '.join(str(error).split())}): export it --to parquet"
            ) from error


def refused_columns(schema: pa.Schema, convert: Callable[[pa.Schema], object]) -> list[str]:
    """Return the names of columns whose types a library refuses.

    Args:
        schema: The columns.
        convert: The library's function that makes its own schema; whatever it raises is a refusal.

    >>> refused_columns(pa.schema({"a": pa.int8()}), lambda schema: schema.field("b"))
    ['a']
    """
    refused = []
    for field in schema:
        try:
            convert(pa.schema([field]))
        except Exception:  # of any kind, such as a plain Exception from Rust
            refused.append(field.name)
    return refused


def flat_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Return the columns that a table of plain values can hold, and the others.

    A struct of plain values counts, as its fields become columns, such as ``scores.noise``, and so does a
    UUID, as text.

    >>> kinds = {"a": pa.int8(), "s": pa.struct({"x": pa.bool_()}), "l": pa.list_(pa.int8())}
    >>> flat_columns(pa.schema(kinds))
    (['a', 's'], ['l'])
    """
    held = [field.name for field in schema if _is_flat(field.type)]
    return held, [name for name in schema.names if name not in held]


def flattened(table: pa.Table) -> pa.Table:
    """Return a table whose structs, also those within structs, are columns named with dots.

    UUIDs are text, and values of other extension types are those that store them.
    """
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            is_uuid = isinstance(field.type, pa.UuidType)
            kind = pa.string() if is_uuid else field.type.storage_type
            chunks = table.column(place).chunks
            stored = [_texts(chunk) if is_uuid else chunk.storage for chunk in chunks]
            table = table.set_column(place, field.name, pa.chunked_array(stored, kind))
    return table


def _texts(uuids: pa.ExtensionArray) -> pa.Array:
    return pa.array(
        [None if uuid is None else str(uuid) for uuid in uuids.to_pylist()], pa.string()
    )


def python_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows as Python's values, also where it has none for a time.

    >>> rows = python_rows(pa.table({"taken": pa.array([0, 2**62], pa.timestamp("us"))}))
    >>> rows[0]["taken"].year, rows[1]["taken"]
    (1970, '<value out of range: 4611686018427387904>')
    """
    columns = [_python_values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _python_values(values: Iterable[pa.Scalar]) -> list[Any]:
    return [_python_value(value) for value in values]


def _python_value(value: pa.Scalar) -> Any:  # noqa: ANN401 - of any column
    try:
        return value.as_py()
    except OverflowError:  # before the year 1 or after 9999, say; the text is that of CSV
        if isinstance(value, pa.StructScalar):
            return {name: _python_value(inner) for name, inner in value.items()}
        if isinstance(value, pa.ListScalar):
            return _python_values(value.values)
        return f"<value out of range: {value.value}>"


def _is_flat(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return all(_is_flat(kind.field(place).type) for place in range(kind.num_fields))
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.UuidType) or _is_flat(kind.storage_type)
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return not pa.types.is_nested(kind) and not any(check(kind) for check in binary)
