"""The reading stage: slices of manifest files to tables of rows (Ray tasks)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.tables.manifest_reading import read_slice
from iqa_core.tables.slices import RowGroupSlice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from iqa_core.storage.folder import Folder

__all__ = ["read_rows"]


def read_rows(
    table: pa.Table,
    *,
    folder: Folder,
    keep: Sequence[str],
    image_id_type: pa.DataType,
    batch_rows: int,
    schema: pa.Schema | None = None,
    skip_damaged: bool = False,
) -> Iterator[pa.Table]:
    """Read the slices of manifest files that a table lists (a Ray task).

    Args:
        table: The fields of :class:`iqa_core.tables.slices.RowGroupSlice`, one slice a row.
        folder: The manifest's folder.
        keep: Columns of the manifest to keep.
        image_id_type: Arrow type of ``image_id``.
        batch_rows: Maximum number of rows of a yielded table.
        schema: Types of the kept columns.
        skip_damaged: Yield rows whose data are damaged with the reason, instead of raising.

    Yields:
        Tables of rows with their identity, encoded bytes or URI, and kept columns.

    Raises:
        DamagedManifestError: If data are damaged and ``skip_damaged`` is False.
    """
    for row in table.to_pylist():
        yield from read_slice(
            folder,
            RowGroupSlice(**row),
            keep,
            image_id_type,
            batch_rows,
            schema=schema,
            skip_damaged=skip_damaged,
        )
