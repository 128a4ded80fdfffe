"""Sizes of columns, from the footer of a Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow.parquet as pq

__all__ = ["column_bytes", "group_bytes", "leaves_of"]


def column_bytes(metadata: pq.FileMetaData, columns: Sequence[str]) -> tuple[int, ...]:
    """Return, for each row group, the uncompressed bytes of some columns and all that is in them."""
    leaves = leaves_of(metadata, columns)
    return tuple(group_bytes(metadata, group, leaves) for group in range(metadata.num_row_groups))


def leaves_of(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """Return the numbers of the leaf columns that some columns consist of."""
    wanted = tuple(f"{column}." for column in columns)
    paths = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    return [place for place, path in enumerate(paths) if f"{path}.".startswith(wanted)]


def group_bytes(metadata: pq.FileMetaData, group: int, leaves: Sequence[int]) -> int:
    """Return the uncompressed bytes of some leaf columns in one row group."""
    chunks = metadata.row_group(group)
    return sum(max(0, chunks.column(leaf).total_uncompressed_size) for leaf in leaves)
