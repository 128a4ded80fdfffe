"""Lists images of folders, globs, tar shards and CSV files, and writes the list as a manifest."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from iqa_core.fetching import redact
from iqa_core.files import Folder, has_scheme
from iqa_core.schema import IMAGE_ID, URI, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IMAGE_SUFFIXES", "find_images", "write_manifest"]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_URI_COLUMNS = (URI, "path", "file", "filename", "image", "image_path", "url")
_NULLS = ["", "NA", "NaN", "nan", "null", "NULL"]
_ROWS_PER_GROUP = 50_000


def find_images(sources: Sequence[str], uri_column: str | None = None) -> tuple[pa.Table, int]:
    """List images of folders, globs, single files and CSV files.

    Args:
        sources: Folders (searched to any depth), globs, image files, tar shards such as
            WebDataset's, or CSV files with a column of paths or URIs, whose other columns are taken
            along. Images in a shard are named in place, as ``shard.tar#bytes=FIRST-LAST``.
        uri_column: The CSV column that holds them; by default the first of ``uri``, ``path``,
            ``file``, ``filename``, ``image``, ``image_path``, ``url`` that there is.

    Returns:
        A table with ``uri``, ``image_id`` and what a CSV has besides, and the number of files that
        were left out because their suffix is not that of an image.

    Raises:
        InputError: If a source does not exist or there is no image at all.
    """
    tables: list[pa.Table] = []
    left_out = 0
    for source in sources:
        if source.lower().endswith((".csv", ".tsv")):
            tables.append(_read_csv(source, uri_column))
            continue
        found, ids = _with_members(*_list_folder(source))
        images = [i for i, name in enumerate(ids) if _is_image_name(name)]
        left_out += len(found) - len(images)
        tables.append(
            pa.table({URI: [found[i] for i in images], IMAGE_ID: [ids[i] for i in images]})
        )
    table = pa.concat_tables(tables, promote_options="default")
    if not len(table):
        raise InputError(
            f"{', '.join(sources)}: no image among {left_out} files: images are known by their suffix "
            f"({' '.join(sorted(IMAGE_SUFFIXES))}); others can be listed in a CSV file"
        )
    return table, left_out


def _with_members(found: list[str], ids: list[str]) -> tuple[list[str], list[str]]:
    """Put the files inside tar shards in the shards' places."""
    uris: list[str] = []
    names: list[str] = []
    for uri, name in zip(found, ids, strict=True):
        if not uri.lower().endswith(".tar"):
            uris.append(uri)
            names.append(name)
            continue
        try:
            with fsspec.open(uri, "rb") as file, tarfile.open(fileobj=file, mode="r:") as shard:
                for member in shard:
                    if member.isreg() and not member.issparse():
                        start = member.offset_data
                        uris.append(f"{uri}#bytes={start}-{start + member.size - 1}")
                        names.append(f"{name}/{member.name}")
        except (OSError, tarfile.TarError) as error:
            raise InputError(
                f"{redact(uri)} can't be read as an uncompressed tar file ({error}): unpack it, or "
                "write it anew"
            ) from error
    return uris, names


def _is_image_name(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _list_folder(source: str) -> tuple[list[str], list[str]]:
    absolute = source if has_scheme(source) else str(Path(source).absolute())
    fs, path = fsspec.core.url_to_fs(absolute)
    is_glob = any(c in path for c in "*?[") and not fs.exists(path)
    if not is_glob and not fs.exists(path):
        raise InputError(f"{source} does not exist: give a folder, a glob, an image or a CSV file")
    found = sorted(fs.glob(path)) if is_glob else sorted(fs.find(path))
    found = [file for file in found if fs.isfile(file)] if is_glob else found
    root = os.path.commonpath(found) if len(found) > 1 else str(PurePosixPath(path).parent)
    root = path if not is_glob and fs.isdir(path) else root
    ids = [os.path.relpath(file, root).replace(os.sep, "/") for file in found]
    return [fs.unstrip_protocol(f) if has_scheme(source) else f for f in found], ids


def _read_csv(source: str, uri_column: str | None) -> pa.Table:
    try:
        with fsspec.open(source, "rb") as file:
            delimiter = "\t" if source.lower().endswith(".tsv") else ","
            options = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            convert = pa.csv.ConvertOptions(strings_can_be_null=True, null_values=_NULLS)
            table = pa.csv.read_csv(
                io.BytesIO(file.read()), parse_options=options, convert_options=convert
            )
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source} can't be read as CSV: {error}") from error
    candidates = [uri_column] if uri_column else _URI_COLUMNS
    column = next((name for name in candidates if name in table.column_names), None)
    if column is None:
        raise InputError(
            f"{source} has the columns {', '.join(table.column_names)}, but none of "
            f"{', '.join(candidates)}: name the column of paths with --uri-column"
        )
    folder = source.rpartition("/")[0] or "."
    uris = [
        uri if uri is None or has_scheme(uri) or uri.startswith("/") else f"{folder}/{uri}"
        for uri in table.column(column).cast(pa.string()).to_pylist()
    ]
    local = not has_scheme(source)
    uris = [str(Path(u).absolute()) if local and u and not has_scheme(u) else u for u in uris]
    rest = table.drop_columns([column])
    return rest.add_column(0, URI, pa.array(uris, pa.string()))


def write_manifest(table: pa.Table, output: str) -> None:
    """Write a manifest, whole or not at all.

    Local images below the manifest's own folder are named relative to it, so that the folder can be
    moved; others by their absolute path.

    Raises:
        InputError: If the output's folder can't be written.
    """
    folder, _, name = output.rpartition("/")
    target = Folder.of(folder or ".")
    if target.is_local:
        root = target.root + "/"
        uris = [
            u[len(root) :] if u and u.startswith(root) else u for u in table.column(URI).to_pylist()
        ]
        table = table.set_column(table.column_names.index(URI), URI, pa.array(uris, pa.string()))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=_ROWS_PER_GROUP, compression="zstd")
    try:
        target.write(name, buffer.getvalue())
    except OSError as error:
        raise InputError(f"--output {output} can't be written: {error}") from error
