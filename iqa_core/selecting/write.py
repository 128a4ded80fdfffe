"""Writes the manifest of a selection: one Parquet file, or a folder of them, whole or not at all.

Rows are written as they come, under a hidden name that no reader of manifests takes; a killed selection
leaves nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.listing import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["ManifestTarget", "restored"]

_GROUP_ROWS = 50_000
_GROUP_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class ManifestTarget:
    """Where a manifest is written to.

    Attributes:
        uri: As the user gave it.
        parent: The folder that it is in.
        name: Its name there.
        rows_per_file: Rows of a file, of a folder of files; None is one file.
    """

    uri: str
    parent: Folder
    name: str
    rows_per_file: int | None = None

    @classmethod
    def of(
        cls, uri: str, rows_per_file: int | None = None, *, dry_run: bool = False
    ) -> ManifestTarget:
        """Check an output before anything is computed.

        Raises:
            InputError: If it exists, or can't be one.
        """
        parent, name = Folder.of_file(uri.rstrip("/"), "output")
        target = cls(uri, parent, name, rows_per_file)
        if rows_per_file is None:
            otherwise = ", or add {rows_per_file} for a folder of files"
            check_output_file("output", uri.rstrip("/"), ".parquet", otherwise=otherwise)
        if rows_per_file is not None and not target.parent.is_local:
            raise InputError(
                f"--rows-per-file needs a local --output, as a store can't show the files of {redact(uri)} "
                "at once: write one .parquet file, or copy the folder there"
            )
        if not dry_run:
            target.check_absent()
        return target

    @property
    def shown(self) -> str:
        """Its name for messages."""
        return redact(self.uri)

    @property
    def folder(self) -> Folder:
        """The folder that relative URIs of the manifest refer to."""
        return self.parent if self.rows_per_file is None else Folder.of(self.parent.path(self.name))

    def check_absent(self) -> None:
        """Check that nothing is there yet.

        Raises:
            InputError: If something is, or it can't be found out.
        """
        try:
            exists = self.parent.exists(self.name)
        except OSError as error:
            raise self._unwritable(error) from error
        if exists:
            raise InputError(
                f"--output {redact(self.uri)} exists already: give another name, or remove it first"
            )

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"--output {redact(self.uri)} can't be written ({redact(str(error))}): nothing is left under "
            "that name"
        )

    def write(
        self, tables: Iterable[pa.Table], facts: Mapping[str, Any], expected: int | None = None
    ) -> int:
        """Write rows.

        Args:
            tables: Rows, in any number of tables of one schema.
            facts: For the files' metadata (:data:`iqa_core.tables.listing.METADATA_KEY`).
            expected: The number of rows that there must be; None accepts any.

        Returns:
            The number of rows.

        Raises:
            InputError: If it can't be written, or has another number of rows; nothing is left under its
                name then.
        """
        metadata = {METADATA_KEY: json.dumps(facts).encode()}
        groups = _groups(tables, self.rows_per_file or 0)
        with self._staging() as staged:
            rows = _write_files(groups, metadata, staged, self.rows_per_file)
            if expected not in (None, rows):
                raise InputError(
                    f"{rows:,} rows came, but {expected:,} were counted: leave expressions out that give "
                    "another value each time, such as random(), and select while no run writes to --scores"
                )
            try:
                self.check_absent()  # another selection may have been faster
                self._publish(staged)
            except FileExistsError as error:
                raise InputError(
                    f"--output {redact(self.uri)} was written by another run"
                ) from error
            except OSError as error:
                raise self._unwritable(error) from error
        return rows

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a path to write to: beside the output, or a temporary one if that is remote."""
        if not self.parent.is_local:
            with tempfile.TemporaryDirectory(prefix="iqa-select-") as folder:
                yield Path(folder, self.name)
            return
        path = Path(self.parent.root, f".{self.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)

    def _publish(self, staged: Path) -> None:
        final = self.parent.path(self.name)
        if not self.parent.is_local:
            self.parent.retried(lambda: self.parent.fs.put_file(str(staged), final))
        else:
            staged.rename(final)


def restored(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield rows whose columns have the types that they had before DuckDB.

    It returns the session's time zone instead of a column's own, microseconds for other units, and text
    for the larger kinds of it and for UUIDs. Dictionaries stay text.

    Args:
        batches: Rows; durations among them are whole numbers of microseconds.
        schema: The types; other columns stay as they are.
    """
    for batch in batches:
        columns = [
            _cast(column, schema.field(name).type) if name in schema.names else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_duration(kind):
        column = column.cast(pa.duration("us"))
    if isinstance(kind, pa.UuidType) and pa.types.is_string(column.type):
        texts = column.to_pylist()
        numbers = [None if text is None else uuid.UUID(text).bytes for text in texts]
        return pa.ExtensionArray.from_storage(kind, pa.array(numbers, kind.storage_type))
    if _has_values_of_another_type(kind) or column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:  # decided by the type, so by all batches alike
        return column


def _has_values_of_another_type(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return True
    inner = range(kind.num_fields) if pa.types.is_nested(kind) else ()
    return any(_has_values_of_another_type(kind.field(place).type) for place in inner)


def _groups(tables: Iterable[pa.Table], rows_per_file: int) -> Iterator[pa.Table]:
    """Yield row groups: of bounded rows and bytes, and none that reaches into the next file."""
    pending: list[pa.Table] = []
    rows = size = done = 0
    for given in tables:
        table = given
        while len(table):
            most = _GROUP_ROWS - rows
            if rows_per_file:
                most = min(most, rows_per_file - (done + rows) % rows_per_file)
            piece, table = table.slice(0, most), table.slice(most)
            pending.append(piece)
            rows += len(piece)
            size += piece.nbytes
            is_end = bool(rows_per_file) and (done + rows) % rows_per_file == 0
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES or is_end:
                yield pa.concat_tables(pending)
                done += rows
                pending, rows, size = [], 0, 0
    if pending:
        yield pa.concat_tables(pending)


def _write_files(
    groups: Iterable[pa.Table], metadata: dict[bytes, bytes], path: Path, rows_per_file: int | None
) -> int:
    """Write row groups to one file, or to files of so many rows in a folder; return the number of rows."""
    rows = 0
    writer: pq.ParquetWriter | None = None
    try:
        for group in groups:
            if writer is None or (rows_per_file and rows % rows_per_file == 0):
                if writer is not None:
                    writer.close()
                file = path
                if rows_per_file:
                    path.mkdir(exist_ok=True)
                    file = path / f"rows-{rows // rows_per_file:05d}.parquet"
                schema = group.schema.with_metadata(metadata)
                writer = pq.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(group, row_group_size=max(1, len(group)))
            rows += len(group)
    finally:
        if writer is not None:
            writer.close()
    for file in (path, *(path.iterdir() if path.is_dir() else ())):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return rows
