"""Column types of manifests: which are text, bytes or images, and one common type for all files.

Writers store the same values as many Arrow types: DataFusion and Polars write views, pandas
dictionaries, ClickHouse and Impala text that is not marked as UTF-8. What is read becomes one of few
types; a column whose type differs between files gets one that holds the values of all of them exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IMAGE, IMAGE_ID, URI
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "as_bytes",
    "as_text",
    "as_type",
    "check_columns",
    "column_type",
    "image_parts",
    "is_binary",
    "partitions",
    "unified_type",
]

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is text, in any of Arrow's layouts."""
    kind = _values(kind)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Return whether a type is bytes, in any of Arrow's layouts."""
    kind = _values(kind)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _holds_text(kind: pa.DataType) -> bool:
    """Whether a column of text may have this type: unmarked bytes, or nothing at all, included."""
    return is_text(kind) or is_binary(kind) or bool(pa.types.is_null(kind))


def _holds_bytes(kind: pa.DataType) -> bool:
    return is_binary(kind) or bool(pa.types.is_null(kind))


def partitions(name: str) -> dict[str, str | None]:
    """Return the columns of Hive-style folder names, such as ``split=train/part-0.parquet``."""
    found: dict[str, str | None] = {}
    for part in name.split("/")[:-1]:
        column, equals, value = part.partition("=")
        if column and equals:
            found[unquote(column)] = None if value == _HIVE_NULL else unquote(value)
    return found


def check_columns(path: str, name: str, schema: pa.Schema, keep: Sequence[str]) -> None:
    """Check that a file has the columns of a manifest.

    Args:
        path: The file, for messages.
        name: Its name relative to the manifest; Hive-style folders in it count as columns.
        schema: Its columns.
        keep: Further columns that it must have.

    Raises:
        InputError: If one is missing, duplicated, or of a type that can't be read.
    """
    columns = {field.name: field.type for field in schema}
    for column in (URI, IMAGE, IMAGE_ID, *keep):
        if schema.names.count(column) > 1:
            raise InputError(
                f"manifest {path} has {schema.names.count(column)} columns named {column}, so that it "
                "is unclear which one is meant: rename all but one"
            )
    if URI not in columns and IMAGE not in columns:
        raise InputError(
            f"manifest {path} has the columns {', '.join(columns)}, but needs a uri column (string) or "
            "an image column (bytes or struct<bytes, path>): rename yours or use `iqa manifest`"
        )
    if URI in columns and not _holds_text(columns[URI]):
        raise InputError(f"column uri of {path} is {columns[URI]}, but must be a string")
    if IMAGE in columns:
        _check_image(path, columns[IMAGE])
    known = columns | partitions(name)
    for column in keep:
        if column not in known:
            raise InputError(f"--keep {column!r} is no column of {path}: it has {', '.join(known)}")


def _check_image(path: str, kind: pa.DataType) -> None:
    advice = "paths belong into a column named uri"
    if _holds_bytes(kind):
        return
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        if "bytes" in fields and _holds_bytes(fields["bytes"]):
            if _holds_text(fields.get("path", pa.string())):
                return
            advice = "`path` must be a string"
    elif pa.types.is_nested(kind):
        advice = "write bytes as binary; of a list of images, write a row for each"
    raise InputError(
        f"column image of {path} is {kind}, but must be binary or struct<bytes, path>; {advice}"
    )


def column_type(column: str, kind: pa.DataType) -> pa.DataType:
    """Return the type in which a column of one file is read and written.

    Every type stays as it is but these: views become string and binary, which all readers of Parquet
    know; an ``image_id`` of bytes is text that its writer did not mark.
    """
    if column == IMAGE_ID and is_binary(kind) and not pa.types.is_fixed_size_binary(_values(kind)):
        return pa.string()
    return _without_views(kind)


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind) and _without_views(kind.value_type) != kind.value_type:
        return _without_views(kind.value_type)
    if not pa.types.is_nested(kind):
        return kind
    fields = [kind.field(i) for i in range(kind.num_fields)]
    plain = [field.with_type(_without_views(field.type)) for field in fields]
    if plain == fields:
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(plain)
    if pa.types.is_large_list(kind):
        return pa.large_list(plain[0])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain[0], kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(plain[0])
    if pa.types.is_map(kind):
        return pa.map_(
            _without_views(kind.key_type), kind.item_field.with_type(_without_views(kind.item_type))
        )
    return kind


def unified_type(column: str, kinds: Mapping[str, pa.DataType]) -> pa.DataType:
    """Return the one type of a column in all files of a manifest.

    Args:
        column: Its name.
        kinds: Its type by file; files that lack the column are left out.

    Returns:
        The type, which holds the values of each; see :func:`as_type` for those that it can't.

    Raises:
        InputError: If there is none, naming two files that disagree.
    """
    examples: dict[pa.DataType, str] = {}
    for file, kind in kinds.items():
        examples.setdefault(column_type(column, kind), file)
    unified, *others = examples
    first = examples[unified]
    for kind in others:
        merged = _merged(column, unified, kind)
        if merged is None:
            raise InputError(
                f"column {column!r} is {kind} in {examples[kind]} but {unified} in {first}: write the "
                "files of one manifest with equal types"
            )
        if pa.types.is_null(unified):
            first = examples[kind]
        unified = merged
    return unified


def _merged(column: str, first: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of two, None if there is none."""
    if pa.types.is_null(first) or pa.types.is_null(other):
        return first if pa.types.is_null(other) else other
    first, other = _values(first), _values(other)
    for kind, wider in ((first, other), (other, first)):
        if is_binary(kind) and is_text(wider):
            return None if pa.types.is_fixed_size_binary(kind) else wider
        if pa.types.is_date(kind) and pa.types.is_timestamp(wider) and wider.tz is None:
            return wider
        if pa.types.is_integer(kind) and pa.types.is_floating(wider) and column == IMAGE_ID:
            return pa.int64()  # pandas writes whole numbers with gaps as floating-point ones
        if pa.types.is_decimal(kind) and pa.types.is_floating(wider):
            return None
    schemas = [pa.schema([(column, kind)]) for kind in (first, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(column).type
    except pa.ArrowException:
        return None


def as_type(array: pa.Array, kind: pa.DataType, where: str) -> pa.Array:
    """Convert a column of one file to its type in the manifest, exactly.

    Args:
        array: The values.
        kind: Of :func:`unified_type`.
        where: The column and the file, for the message.

    Raises:
        InputError: If a value can't be converted without loss.
    """
    if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and _holds_text(array.type):
        return as_text(array, errors="backslashreplace").cast(kind)
    if array.type == kind:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        return array.cast(kind)
    except pa.ArrowException as error:
        raise InputError(
            f"{where} is {array.type}, the other files of the manifest make it {kind}, and that does "
            f"not hold all values ({' '.join(str(error).split())[:200]}): write the files of one "
            "manifest with equal types"
        ) from error


def as_text(array: pa.Array, errors: str = "replace") -> pa.Array:
    """Return a column of text or of unmarked bytes as strings, which are UTF-8.

    Args:
        array: Of any type that :func:`check_columns` takes for text.
        errors: What becomes of bytes that are no UTF-8, as of :meth:`bytes.decode`.
    """
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    padded = pa.types.is_fixed_size_binary(array.type)
    try:
        text = array.cast(pa.string())
        text.validate(full=True)  # of strings, a file only promises that they are UTF-8
    except pa.ArrowInvalid:
        pass
    else:
        return pc.utf8_rtrim(text, "\0") if padded else text
    values = array.cast(pa.binary()).to_pylist()
    values = [value and (value.rstrip(b"\0") if padded else value) for value in values]
    return pa.array([None if v is None else v.decode(errors=errors) for v in values], pa.string())


def as_bytes(array: pa.Array) -> pa.Array:
    """Return a column of bytes as ``large_binary``, without a copy where the layout allows it."""
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.large_binary())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.large_binary())


def image_parts(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Split an image column into its bytes, and its paths where the image is not embedded.

    Args:
        array: Bytes or struct<bytes, path>, of length N.

    Returns:
        N bytes, and N strings that are null where there are bytes; None if it has no paths.
    """
    if not pa.types.is_struct(array.type):
        return as_bytes(array), None
    names = [array.type.field(i).name for i in range(array.type.num_fields)]
    fields = dict(zip(names, array.flatten(), strict=True))
    data = as_bytes(fields["bytes"])
    if "path" not in fields:
        return data, None
    return data, pc.if_else(data.is_null(), as_text(fields["path"]), None)
