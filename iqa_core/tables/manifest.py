"""Manifests: Parquet tables that name images, in the forms that are in common use.

A manifest is a file, a glob or a directory of Parquet files with a ``uri`` column (string), or an
``image`` column of encoded bytes or of struct<bytes, path> as Hugging Face ``datasets`` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.columns import IMAGE, IMAGE_ID, URI
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.claim import Claim
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.column_sizes import column_bytes
from iqa_core.tables.manifest_columns import check_columns, partitions, unified_type
from iqa_core.tables.manifest_files import find_files
from iqa_core.tables.manifest_footers import FooterReader
from iqa_core.tables.manifest_shard import Shard, places_of, ranges_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Manifest", "ManifestFile", "open_manifest"]

_MAX_ROWS = 2**32 - 1  # what a bitmap holds


@dataclass(frozen=True)
class ManifestFile:
    """One Parquet file of a manifest.

    Attributes:
        name: Its name relative to the manifest.
        size: Bytes, to notice that a file has changed between two runs.
        row_groups: Rows of each row group.
        digest: Of its content, for the same purpose; None if it is not known.
        group_bytes: Uncompressed bytes of the columns that are read, of each row group.
        stamp: Version tag of the filesystem, to notice a change within a run.
        shard: The row numbers that a run of one shard does; None are all.
    """

    name: str
    size: int
    row_groups: tuple[int, ...]
    digest: str | None = None
    group_bytes: tuple[int, ...] = ()
    stamp: str = ""
    shard: range | None = None

    @cached_property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)

    @property
    def wanted(self) -> range:
        """The row numbers that a run does: all, or those of its shard."""
        return range(self.rows) if self.shard is None else self.shard


@dataclass(frozen=True)
class Manifest:
    """An opened manifest: its files and columns; no row has been read yet.

    Attributes:
        uri: As the user gave it, made absolute.
        folder: The folder that its files' names and relative image paths refer to.
        files: Its files, by name.
        schema: The columns of the first file, and the further ones of ``keep`` and ``image_id``; these
            have types that hold the values of all files.
        notes: A sentence on each file or folder that was left out.
        shard: The shard that a run does; None does all rows.
        place: URI of the folder that relative image paths refer to, where it is not ``folder``.
    """

    uri: str
    folder: Folder
    files: tuple[ManifestFile, ...]
    schema: pa.Schema
    notes: tuple[str, ...] = ()
    shard: Shard | None = None
    place: str | None = None

    @cached_property
    def rows(self) -> int:
        """Rows to do: of all files, or of the shard."""
        return sum(len(file.wanted) for file in self.files)

    def only(self, shard: Shard | None) -> Manifest:
        """Return the manifest of one shard's run: with all files, but the rows of the shard."""
        if shard is None:
            return self
        ranges = ranges_of([file.row_groups for file in self.files], shard)
        files = zip(self.files, ranges, strict=True)
        parts = tuple(replace(file, shard=rows) for file, rows in files)
        return replace(self, files=parts, shard=shard)

    def claim(self, content: str | None = None) -> Claim:
        """Return what a run claims of its output.

        Args:
            content: Digest of the run's fingerprint.
        """
        if self.shard is None:
            return Claim(content=content)
        names = [file.name for file in self.files]
        first, stop = places_of(names, [file.wanted for file in self.files])
        return Claim(str(self.shard), first, stop, content)

    @property
    def image_id_type(self) -> pa.DataType:
        """Type of ``image_id``; string where there is none."""
        names = self.schema.names
        return self.schema.field(IMAGE_ID).type if IMAGE_ID in names else pa.string()

    def rows_within(self, size: int) -> int:
        """Return the number of rows, at least 1, whose data have about ``size`` bytes."""
        total = sum(sum(file.group_bytes) for file in self.files)
        rows = sum(file.rows for file in self.files)
        return max(1, size * rows // max(1, total))

    def plan(self) -> dict[str, Any]:
        """Return what a run records of the manifest, as a JSON document."""
        files = [
            {
                "name": file.name,
                "size": file.size,
                "row_groups": list(file.row_groups),
                "digest": file.digest,
                "rows": file.rows,
            }
            for file in self.files
        ]
        rows = sum(file.rows for file in self.files)
        place = redact(self.place or self.folder.uri)
        return {"manifest": redact(self.uri), "folder": place, "rows": rows, "files": files}


def open_manifest(uri: str, keep: Sequence[str] = ()) -> Manifest:
    """Find a manifest's files, read their footers and check their columns.

    Args:
        uri: A Parquet file with any name, a glob, or a directory (searched to any depth, through
            symbolic links, for ``*.parquet``; names that begin with an underscore or a dot are left
            out), local or on any fsspec filesystem.
        keep: Further columns that every file must have, or state in its folders' names (Hive).

    Returns:
        The manifest.

    Raises:
        InputError: If there is none, or a file is not a manifest.
    """
    absolute = uri if has_scheme(uri) else str(Path(uri).absolute())
    folder, names, notes, infos = find_files(absolute)
    reader = FooterReader(folder, names, infos)
    opened = reader.map(lambda name: _open_file(folder, name, keep, reader))
    schema = opened[0][1]
    for column in (IMAGE_ID, *keep):
        kinds = {
            file.name: columns.field(column).type if column in columns.names else pa.string()
            for file, columns in opened
            if column in columns.names or (column in keep and column in partitions(file.name))
        }
        if kinds:
            field = pa.field(column, unified_type(column, kinds))
            place = schema.get_field_index(column)
            schema = schema.append(field) if place < 0 else schema.set(place, field)
    return Manifest(absolute, folder, tuple(file for file, _ in opened), schema, tuple(notes))


def _open_file(
    folder: Folder, name: str, keep: Sequence[str], reader: FooterReader
) -> tuple[ManifestFile, pa.Schema]:
    shown = redact(f"{folder.uri}/{name}")
    try:
        footer = reader.read(name)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{shown} is not a readable Parquet file ({redact(str(error))}): make one with "
            "`iqa manifest`"
        ) from error
    metadata = footer.metadata
    groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if sum(groups) > _MAX_ROWS or min(groups, default=0) < 0:
        raise InputError(
            f"{shown} claims {sum(groups):,} rows, but a file may have {_MAX_ROWS:,} at most: split it"
        )
    schema = metadata.schema.to_arrow_schema()
    check_columns(f"{folder.uri}/{name}", name, schema, keep)
    sizes = column_bytes(metadata, (URI, IMAGE, IMAGE_ID, *keep))
    return ManifestFile(name, footer.size, groups, footer.digest, sizes, footer.stamp), schema
