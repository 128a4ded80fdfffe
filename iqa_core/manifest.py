"""Manifests: Parquet tables that name images, read in the forms that people have.

A manifest is a file, a glob or a directory of Parquet files with a ``uri`` column (string), or an
``image`` column of encoded bytes or of struct<bytes, path> as Hugging Face ``datasets`` writes it.
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from pyroaring import BitMap

from iqa_core.fetching import redact
from iqa_core.files import Folder, has_scheme, open_filesystem
from iqa_core.listing import find_images
from iqa_core.schema import (
    IMAGE,
    IMAGE_ID,
    MANIFEST_FILE,
    MANIFEST_ROW,
    URI,
    InputError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.rows import RowSet

__all__ = [
    "DATA",
    "Manifest",
    "ManifestFile",
    "Unit",
    "find_images",
    "open_manifest",
    "plan_units",
    "read_unit",
]

#: Column of encoded bytes between the reading and the decoding stage.
DATA = "_data"

_ROWS_PER_UNIT = 50_000
_MAX_ROWS = 2**32 - 1  # what a bitmap holds
#: Of s3fs, gcsfs and huggingface_hub.
_CHECKSUMS = ("ETag", "md5Hash", "blob_id")
_DIGEST_BYTES = 2**28


@dataclass(frozen=True)
class ManifestFile:
    """One Parquet file of a manifest.

    Attributes:
        name: Its name relative to the manifest.
        size: Bytes, to notice that a file has changed between two runs.
        row_groups: Rows of each row group.
        digest: Of its content, for the same purpose; None if it is not known.
    """

    name: str
    size: int
    row_groups: tuple[int, ...]
    digest: str | None = None

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Manifest:
    """An opened manifest: its files and columns; no row has been read yet.

    Attributes:
        uri: As the user gave it, made absolute.
        folder: What its files' names, and relative image paths, are relative to.
        files: Its files, by name.
        schema: The columns of the first file; the others were checked against it.
    """

    uri: str
    folder: Folder
    files: tuple[ManifestFile, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def image_id_type(self) -> pa.DataType:
        """Type of ``image_id``; string where there is none."""
        names = self.schema.names
        return self.schema.field(IMAGE_ID).type if IMAGE_ID in names else pa.string()

    def plan(self) -> dict[str, Any]:
        """Return what a run remembers of the manifest, as JSON holds it."""
        files = [asdict(file) | {"rows": file.rows} for file in self.files]
        return {"manifest": redact(self.uri), "rows": self.rows, "files": files}


@dataclass(frozen=True)
class Unit:
    """Rows of one row group that one task reads.

    Attributes:
        file: Name of the manifest file.
        group: Row group.
        first: Row number, in the file, of the group's first row.
        wanted: Serialised bitmap of the row numbers to read.
    """

    file: str
    group: int
    first: int
    wanted: bytes


def open_manifest(uri: str, keep: Sequence[str] = ()) -> Manifest:
    """Find a manifest's files, read their footers and check their columns.

    Args:
        uri: A Parquet file, a glob, or a directory (searched to any depth; names that begin with
            an underscore or a dot are left out), local or on any fsspec filesystem.
        keep: Further columns that every file must have.

    Returns:
        The manifest.

    Raises:
        InputError: If there is none, or a file is not a manifest.
    """
    absolute = uri if has_scheme(uri) else str(Path(uri).absolute())
    folder, names = _find_files(absolute)
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(lambda name: _open_file(folder, name), names))
    schema = opened[0][1]
    for file, columns in opened:
        _check_columns(f"{folder.uri}/{file.name}", columns, keep)
        for column in (IMAGE_ID, *keep):
            if column in schema.names and (
                column not in columns.names
                or columns.field(column).type != schema.field(column).type
            ):
                found = columns.field(column).type if column in columns.names else "missing"
                raise InputError(
                    f"column {column!r} is {found} in {file.name} but {schema.field(column).type} in "
                    f"{opened[0][0].name}: write the files of one manifest with equal types"
                )
    return Manifest(absolute, folder, tuple(file for file, _ in opened), schema)


def _find_files(uri: str) -> tuple[Folder, list[str]]:
    try:
        if uri.lower().startswith(("http://", "https://")) and "?" in uri:
            return _one_signed_file(uri)
        fs, path = open_filesystem(uri)
        path = path.rstrip("/")
        folder = Folder(uri, fs, path)
        root, found = folder.retried(lambda: _list_files(fs, path))
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"--manifest {redact(uri)} can't be read: {redact(str(error))}") from error
    if not found:
        raise InputError(f"--manifest {redact(uri)} does not exist: check the path")
    names = [str(PurePosixPath(file).relative_to(root)) for file in sorted(found)]
    names = [
        name
        for name in names
        if name.endswith(".parquet") and not any(p.startswith(("_", ".")) for p in name.split("/"))
    ]
    if not names:
        raise InputError(
            f"--manifest {redact(uri)} holds no *.parquet file: make one with `iqa manifest`"
        )
    # Of HTTP, the path is the whole URL; and a file:// manifest is as local as one without.
    bare = has_scheme(root) or "://" not in uri or folder.is_local
    return Folder(root if bare else f"{uri.partition('://')[0]}://{root}", fs, root), names


def _one_signed_file(uri: str) -> tuple[Folder, list[str]]:
    """Open a URL with a query, which stays with the requests: it is no name, and may be a secret."""
    place, _, query = uri.partition("?")
    root, _, name = place.rpartition("/")
    fs, _ = open_filesystem(place)
    return Folder(root, fs, root, query=f"?{query}"), [name]


def _list_files(fs: fsspec.AbstractFileSystem, path: str) -> tuple[str, list[str]]:
    """Return the folder that names are relative to, and the files."""
    if any(mark in path for mark in "*?[") and not fs.exists(path):
        root = path[: min(path.index(mark) for mark in "*?[" if mark in path)].rpartition("/")[0]
        return root, list(fs.glob(path))
    if fs.isdir(path):
        # An empty folder is there, which an empty list would not say.
        return path, list(fs.find(path)) or [f"{path}/"]
    return path.rpartition("/")[0], [path] if fs.exists(path) else []


def _open_file(folder: Folder, name: str) -> tuple[ManifestFile, pa.Schema]:
    path = folder.path(name)

    def read_footer() -> tuple[Any, int, str]:
        with folder.fs.open(path, "rb") as file:
            info = folder.fs.info(path)
            metadata = pq.read_metadata(file)
            return metadata, int(info["size"] or 0), _digest(folder, file, info, metadata)

    shown = f"{folder.uri}/{name}"
    try:
        metadata, size, digest = folder.retried(read_footer)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{redact(shown)} is not a readable Parquet file ({redact(str(error))}): make one with "
            "`iqa manifest`"
        ) from error
    groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if sum(groups) > _MAX_ROWS or min(groups, default=0) < 0:
        raise InputError(
            f"{redact(shown)} states {sum(groups):,} rows, but a file may have {_MAX_ROWS:,} at most: "
            "split it"
        )
    schema = metadata.schema.to_arrow_schema()
    return ManifestFile(name, size, groups, digest), schema


def _digest(folder: Folder, file: Any, info: dict[str, Any], metadata: Any) -> str:  # noqa: ANN401
    """Return what tells one content of a file from another of the same size.

    The store's own checksum where it has one; else of the file itself if it is local and not large,
    or of the footer, which has the sizes and extreme values of all columns.
    """
    for key in _CHECKSUMS:
        if info.get(key) and not has_scheme(folder.root):  # servers of HTTP tag as they like
            return f"{key} {info[key]}"
    if folder.is_local and info["size"] <= _DIGEST_BYTES:
        file.seek(0)
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    footer = io.BytesIO()
    metadata.write_metadata_file(footer)
    return f"footer {hashlib.blake2b(footer.getvalue()).hexdigest()[:32]}"


def _check_columns(path: str, schema: pa.Schema, keep: Sequence[str]) -> None:
    columns = {field.name: field.type for field in schema}
    if URI not in columns and IMAGE not in columns:
        raise InputError(
            f"manifest {path} has the columns {', '.join(columns)}, but needs a uri column (string) or "
            "an image column (bytes or struct<bytes, path>): rename yours or use `iqa manifest`"
        )
    if URI in columns and not _is_string(columns[URI]):
        raise InputError(f"column uri of {path} is {columns[URI]}, but must be a string")
    if IMAGE in columns and not (_is_binary(columns[IMAGE]) or _is_image_struct(columns[IMAGE])):
        raise InputError(
            f"column image of {path} is {columns[IMAGE]}, but must be binary or struct<bytes, path>; "
            "paths belong into a column named uri"
        )
    missing = [column for column in keep if column not in columns]
    if missing:
        raise InputError(
            f"--keep {missing[0]!r} is no column of {path}: it has {', '.join(columns)}"
        )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def plan_units(manifest: Manifest, done: RowSet) -> Iterator[Unit]:
    """Yield what is still to read: every row of the manifest that is not done, once."""
    for file in manifest.files:
        remaining = BitMap(range(file.rows)) - done.rows(file.name)
        first = 0
        for group, rows in enumerate(file.row_groups):
            for start in range(first, first + rows, _ROWS_PER_UNIT):
                stop = min(start + _ROWS_PER_UNIT, first + rows)
                wanted = remaining & BitMap(range(start, stop))
                if wanted:
                    yield Unit(file.name, group, first, wanted.serialize())
            first += rows


def read_unit(
    folder: Folder, unit: Unit, keep: Sequence[str], image_id_type: pa.DataType, batch_rows: int
) -> Iterator[pa.Table]:
    """Read the wanted rows of one unit.

    Args:
        folder: The manifest's folder.
        unit: What to read.
        keep: Columns to carry along.
        image_id_type: Type of ``image_id``.
        batch_rows: Rows of one table at most.

    Yields:
        Tables of the identity columns, ``image_id``, ``uri``, ``_data`` (encoded bytes, null where
        the image is to be fetched) and the kept columns.
    """
    wanted = BitMap.deserialize(unit.wanted)
    with folder.fs.open(folder.path(unit.file), "rb") as handle:
        file = pq.ParquetFile(handle)
        present = set(file.schema_arrow.names)
        columns = [name for name in (URI, IMAGE, IMAGE_ID, *keep) if name in present]
        row = unit.first
        for batch in file.iter_batches(batch_rows, row_groups=[unit.group], columns=columns):
            numbers = [n for n in range(row, row + len(batch)) if n in wanted]
            if numbers:
                table = pa.Table.from_batches([batch]).take([n - row for n in numbers])
                yield _normalise(table, unit.file, numbers, keep, image_id_type)
            row += len(batch)


def _normalise(
    table: pa.Table, file: str, numbers: list[int], keep: Sequence[str], image_id_type: pa.DataType
) -> pa.Table:
    count = len(table)
    uri = pa.chunked_array([pa.nulls(count, pa.string())])
    if URI in table.column_names:
        uri = _valid_text(table.column(URI).cast(pa.string()))
    data = pa.chunked_array([pa.nulls(count, pa.large_binary())])
    if IMAGE in table.column_names:
        image = table.column(IMAGE)
        if pa.types.is_struct(image.type):
            fields = image.combine_chunks().flatten()
            names = [image.type.field(i).name for i in range(image.type.num_fields)]
            parts = dict(zip(names, fields, strict=True))
            image = pa.chunked_array([parts["bytes"]])
            if URI not in table.column_names and "path" in parts:
                # `path` is only an image's address where the bytes are not embedded.
                paths = pa.compute.if_else(parts["bytes"].is_null(), parts["path"], None)
                uri = _valid_text(pa.chunked_array([paths]).cast(pa.string()))
        data = image.cast(pa.large_binary())
    image_id = pa.nulls(count, image_id_type)
    arrays = {
        MANIFEST_FILE: pa.array([file] * count, pa.string()),
        MANIFEST_ROW: pa.array(numbers, pa.int64()),
        IMAGE_ID: table.column(IMAGE_ID) if IMAGE_ID in table.column_names else image_id,
        URI: uri,
        DATA: data,
    }
    return pa.table(arrays | {name: table.column(name) for name in keep})


def _valid_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return strings whose bytes are UTF-8, which Parquet files only promise."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        texts = column.cast(pa.binary()).to_pylist()
        fixed = [text if text is None else text.decode(errors="replace") for text in texts]
        return pa.chunked_array([pa.array(fixed, pa.string())])
    return column
