"""The rows and statuses of a part file, and the metadata that state them in its footer."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from pyroaring import BitMap

from iqa_core.columns import IDENTITY, STATUS
from iqa_core.tables.rows import RowSet, rows_within

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["Depth", "PartContent", "content_of", "count_statuses"]

_METADATA_KEY = b"iqa"


class Depth(Enum):
    """How much of a part file is read to learn its rows."""

    #: The footer, if its metadata have all that is needed; else as IDENTITIES.
    FOOTER = "footer"
    #: The identity columns.
    IDENTITIES = "identities"
    #: All columns to their end, with checksums, to verify that the file is undamaged.
    WHOLE = "whole"


@dataclass(frozen=True)
class PartContent:
    """What an audit needs to know of a part file.

    Attributes:
        name: The file's name.
        rows: Its rows.
        statuses: Rows by status.
        fingerprint: Digest of the fingerprint that it was written under; None if it has none.
    """

    name: str
    rows: RowSet
    statuses: Mapping[str, int]
    fingerprint: str | None

    @classmethod
    def of(cls, name: str, table: pa.Table, fingerprint: str | None) -> PartContent:
        """Return the content of a part file with a table's rows."""
        return cls(name, RowSet.of(table), count_statuses(table), fingerprint)

    def metadata(self) -> dict[bytes, bytes]:
        """Return the schema metadata that the part file carries."""
        document: dict[str, Any] = {
            "statuses": dict(self.statuses),
            "fingerprint": self.fingerprint,
        }
        if not self.rows.duplicates:  # bitmaps have no place for them
            self.rows.compact()
            document["rows"] = {
                file: b64encode(rows.serialize()).decode() for file, rows in self.rows.bitmaps()
            }
        return {_METADATA_KEY: json.dumps(document).encode()}


def count_statuses(table: pa.Table) -> dict[str, int]:
    """Return the number of rows with each status."""
    counts = pc.value_counts(table.column(STATUS)).to_pylist()
    return {count["values"]: count["counts"] for count in counts}


def content_of(
    name: str, file: pq.ParquetFile, depth: Depth, within: Mapping[str, range] | None
) -> PartContent:
    """Read the rows and statuses of a part file.

    Args:
        name: The file's name.
        file: The opened file.
        depth: How much of it is read.
        within: Ranges of row numbers, by manifest file; only rows in these count. None counts all.

    Raises:
        ValueError, OSError, pyarrow.ArrowException: If it can't be read, or its footer states other rows.
    """
    metadata = json.loads((file.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}"))
    statuses = metadata.get("statuses", {})
    known = sum(statuses.values()) == file.metadata.num_rows
    columns = [*IDENTITY] if known else [*IDENTITY, STATUS]
    stated = rows = _rows_in(metadata, file) if known else None
    table = None
    if rows is None or depth is not Depth.FOOTER:
        table = file.read(None if depth is Depth.WHOLE else columns, use_threads=False)
        rows = RowSet.of(table)
        if stated is not None and stated != rows:
            raise ValueError("its footer states other rows than it holds")
        if STATUS in table.column_names:
            statuses = count_statuses(table)
    content = PartContent(name, rows, statuses, metadata.get("fingerprint"))
    if within is None or not (outside := len(rows) - len(rows.within(within))):
        return content
    if outside == len(rows):
        return replace(content, rows=RowSet(), statuses={})
    if table is None or STATUS not in table.column_names:
        table = file.read([*IDENTITY, STATUS], use_threads=False)
    table = table.filter(rows_within(table, within))
    return PartContent.of(name, table, content.fingerprint)


def _rows_in(metadata: Mapping[str, Any], file: pq.ParquetFile) -> RowSet | None:
    """Return the rows that a part file's metadata state; None if they do not, or not all."""
    bitmaps = {
        name: BitMap.deserialize(b64decode(rows)) for name, rows in metadata.get("rows", {}).items()
    }
    rows = RowSet.of_bitmaps(bitmaps)
    return rows if len(rows) == file.metadata.num_rows else None
