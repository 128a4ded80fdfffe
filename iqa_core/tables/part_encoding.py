"""How part files are encoded: compressed, with dictionaries of what repeats; features with neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.columns import CONTENT_HASH, IMAGE_ID, MANIFEST_ROW, URI, Kind, names_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FEATURE_COLUMNS", "write_options"]

#: Columns of many float16 values a row. Compression and dictionaries cost seconds for each 100,000 rows,
#: and their random low bits make them hardly smaller.
FEATURE_COLUMNS = frozenset(names_of(Kind.FEATURE, Kind.VIEW))

#: Columns whose values are nearly all different, as floating-point numbers are, too: each would be stored
#: in the dictionary and as an index besides.
_DISTINCT = frozenset({MANIFEST_ROW, URI, IMAGE_ID, CONTENT_HASH})

#: Bytes of features in a row group, which a reader holds at once.
_GROUP_BYTES = 16 * 1024 * 1024
_MOST_ROWS = 1024 * 1024


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the options of ``pyarrow.parquet.write_table`` for part files.

    Args:
        schema: Their columns.
    """
    other = {
        path: kind
        for field in schema
        if field.name not in FEATURE_COLUMNS
        for path, kind in _leaves(field.name, field.type)
    }
    repeating = [
        path
        for path, kind in other.items()
        if path not in _DISTINCT and not pa.types.is_floating(kind)
    ]
    return {
        "compression": dict.fromkeys(other, "zstd"),
        "use_dictionary": repeating,
        "write_statistics": list(other),
        "write_page_checksum": True,
        "row_group_size": min(_MOST_ROWS, max(1, _GROUP_BYTES // _feature_bytes(schema))),
    }


def _feature_bytes(schema: pa.Schema) -> int:
    """Return the bytes of a row's features, at least 1."""
    types = [field.type for field in schema if field.name in FEATURE_COLUMNS]
    fixed = [kind for kind in types if pa.types.is_fixed_size_list(kind)]
    sizes = [kind.list_size * kind.value_type.bit_width // 8 for kind in fixed]
    total: int = sum(sizes)
    return max(1, total)


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the paths of a column's leaves, as Parquet names them, and their types."""
    if pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            field = kind.field(place)
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_nested(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind
