"""Lists images of folders, globs, tar shards and lists, and writes them as a manifest."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.columns import IMAGE_ID, URI
from iqa_core.errors import InputError
from iqa_core.storage.encodings import printable
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.file_search import find_files, is_pattern
from iqa_core.tables.listing_report import ListingReport, Reason
from iqa_core.tables.path_lists import (
    LIST_SUFFIXES,
    TEXT_SUFFIXES,
    read_lines,
    read_list,
    suffix_of,
)
from iqa_core.tables.shards import list_members
from iqa_core.tables.text_types import plain_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["IMAGE_SUFFIXES", "METADATA_KEY", "find_images", "write_manifest"]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_ARCHIVE_SUFFIXES = frozenset(
    {".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar"}
)
#: What is a list of images for other programs, if a user names it.
_OTHER_LISTS = frozenset(
    {".json", ".jsonl", ".ndjson", ".xls", ".xlsx", ".ods", ".feather", ".arrow"}
)
#: Key of the manifest's own metadata in its Parquet schema: a JSON document.
METADATA_KEY = b"iqa"
_ROWS_PER_GROUP = 50_000
_RANGE = re.compile(r"#bytes=\d+-\d+$")


def find_images(
    sources: Sequence[str], uri_column: str | None = None
) -> tuple[pa.Table, ListingReport]:
    """List images of folders, globs, single files, tar shards and lists.

    Args:
        sources: Folders (searched to any depth), globs, image files, tar shards such as
            WebDataset's, CSV files with a column of paths or URIs, whose other columns are taken
            along, or text files with one path or URI per line. Images in a shard are named in place,
            as ``shard.tar#bytes=FIRST-LAST``.
        uri_column: The CSV column of paths or URIs; by default the first of ``uri``, ``path``,
            ``file``, ``filename``, ``image``, ``image_path``, ``url`` and the like that there is.

    Returns:
        A table with ``uri``, ``image_id`` and what a CSV has besides, in which columns of plain
        numbers are numbers and ``image_id`` is text; and what was left out, corrected or is doubtful.

    Raises:
        InputError: If a source does not exist, there is no image at all, or a column is named and no source
            has columns.
    """
    if uri_column is not None and not any(suffix_of(source) in LIST_SUFFIXES for source in sources):
        raise InputError(
            f"--uri-column {uri_column} is a column of CSV and TSV files, and none is given: name such "
            "files, or leave it out"
        )
    report = ListingReport()
    tables = [table for source in sources for table in _list_source(source, uri_column, report)]
    table = pa.concat_tables(tables, promote_options="default") if tables else pa.table({URI: []})
    if not len(table):
        reasons = report.lines() or [
            f"images are known by their suffix ({' '.join(sorted(IMAGE_SUFFIXES))}); others can be "
            "listed in a CSV file"
        ]
        names = ", ".join(map(printable, sources))
        lists = LIST_SUFFIXES | TEXT_SUFFIXES
        if all(suffix_of(source) in lists for source in sources) and not report.total:
            raise InputError(f"{names}: no rows: give a list with at least one image")
        raise InputError(f"{names}: no image among {report.total} files: {'; '.join(reasons)}")
    _note_repeated(table.column(URI), report)
    return plain_types(table, {URI, IMAGE_ID}), report


def _note_repeated(uris: pa.ChunkedArray, report: ListingReport) -> None:
    uris = uris.drop_null()
    found, counts = pc.value_counts(uris).flatten()
    if repeated := len(uris) - len(found):
        example = found.filter(pc.greater(counts, 1))[0].as_py()
        report.add(Reason.REPEATED, example, repeated)


def _list_source(source: str, uri_column: str | None, report: ListingReport) -> Iterator[pa.Table]:
    suffix = suffix_of(source)
    if suffix in LIST_SUFFIXES | TEXT_SUFFIXES:
        # a pattern of lists, unless a list of that exact name exists
        many = is_pattern(source) and not source.lower().startswith(("http://", "https://"))
        for path in find_files(source, report)[0] if many else [source]:
            if suffix in LIST_SUFFIXES:
                yield read_list(path, uri_column, report)
            elif (table := read_lines(path, is_image_name, report)) is not None:
                yield table
        return
    uris: list[str] = []
    ids: list[str] = []
    for uri, name in zip(*find_files(source, report), strict=True):
        kind = suffix_of(name)
        if reason := _reason_against(uri, kind):
            named = suffix in _OTHER_LISTS
            report.add(Reason.NO_LIST if named else reason, name)
        elif kind == ".tar":
            members, names = list_members(uri, name, is_image_name, report)
            uris += members
            ids += names
        else:
            uris.append(_as_text(uri))
            ids.append(os.fsencode(name).decode(errors="backslashreplace"))
    yield pa.table({URI: pa.array(uris, pa.string()), IMAGE_ID: pa.array(ids, pa.string())})


def _reason_against(uri: str, suffix: str) -> Reason | None:
    """Return why a file is not to be listed, if so."""
    if suffix in _ARCHIVE_SUFFIXES:
        return Reason.ARCHIVE
    if suffix == ".parquet":
        return Reason.PARQUET
    if suffix != ".tar" and suffix not in IMAGE_SUFFIXES:
        return Reason.SUFFIX
    if suffix == ".tar" and not _is_utf_8(uri):
        return Reason.NOT_UTF8
    # A local path in which nothing may read as something else.
    if uri.startswith("/") and (has_scheme(uri) or _RANGE.search(uri)):
        return Reason.LIKE_URI
    return None


def _as_text(uri: str) -> str:
    """Return a file's name in a manifest: its path, or a ``file:`` URI if the path is not valid text."""
    if uri.startswith("/") and not _is_utf_8(uri):
        return f"file://{quote(os.fsencode(uri))}"
    return uri


def _is_utf_8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_image_name(path: str) -> bool:
    """Return whether a path's suffix is that of an image."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def write_manifest(table: pa.Table, output: str, summary: Mapping[str, Any] | None = None) -> None:
    """Write a manifest, whole or not at all.

    Local images below the manifest's own folder are named relative to it, so that the folder can be
    moved; others by their absolute path.

    Args:
        table: The rows, with ``uri``.
        output: Path or URI of the Parquet file.
        summary: How they were found, for the file's metadata (:data:`METADATA_KEY`).

    Raises:
        InputError: If the output's folder can't be opened or written.
    """
    target, name = Folder.of_file(output, "output")
    if target.is_local:
        root = target.root + "/"
        uris = [
            u[len(root) :] if u and u.startswith(root) else u for u in table.column(URI).to_pylist()
        ]
        table = table.set_column(table.column_names.index(URI), URI, pa.array(uris, pa.string()))
    if summary is not None:
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(summary)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=_ROWS_PER_GROUP, compression="zstd")
    try:
        target.write(name, buffer.getvalue())
    except OSError as error:
        raise InputError(f"--output {output} can't be written: {error}") from error
