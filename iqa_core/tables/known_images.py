"""Images that earlier manifests or outputs name: a manifest of the others is one of new images only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import URI
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.parts import PartFiles
from iqa_core.tables.plan import PLAN, manifest_folder, read_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["known_images", "without"]

_OPTION = "--without"


def known_images(sources: Sequence[str], output: str) -> pa.Array:
    """Return the images that manifests or outputs name.

    Args:
        sources: Manifests (files, globs or folders), or outputs of `iqa score` and `iqa embed`.
        output: The manifest that is to be written, which must be none of their files.

    Returns:
        Absolute paths and URIs, each once.

    Raises:
        InputError: If one can't be read or has no column ``uri``, or ``output`` is a file of one.
    """
    found = []
    for source in sources:
        files, names, base = _files(source)
        place = files.folder.uri.rstrip("/")
        check_output_file("output", output, ".parquet", [f"{place}/{name}" for name in names])
        for table in files.tables([URI], names):
            found.append(pa.array(_absolute(table.column(URI), base), pa.string()))
    return pc.unique(pa.chunked_array(found, pa.string())).drop_null()


def without(table: pa.Table, known: pa.Array) -> pa.Table:
    """Return the rows whose ``uri``, an absolute path or a URI, is not among known ones."""
    return table.filter(pc.invert(pc.is_in(table.column(URI), value_set=known)))


def _files(source: str) -> tuple[PartFiles, list[str], str]:
    """Return files with a column ``uri``, and the folder that relative paths in it refer to."""
    shown = f"{_OPTION} {redact(source)}"
    folder = Folder.given(source, "without")
    try:
        is_output = folder.exists(PLAN)
    except OSError:  # not a folder
        is_output = False
    if is_output:
        files = PartFiles(folder, shown)
        names, base = files.names(), manifest_folder(read_plan(folder)) or folder.uri
        columns = files.schema(names[0]).names if names else [URI]
    else:
        try:
            manifest = open_manifest(source)
        except InputError as error:
            raise InputError(f"{shown}: {error}") from error
        files = PartFiles(manifest.folder, shown, "restore it, or leave it out")
        names, columns = [file.name for file in manifest.files], manifest.schema.names
        base = manifest.folder.uri
    if URI not in columns:
        raise InputError(f"{shown} has no column {URI}: images without one can't be told apart")
    return files, names, base


def _absolute(uris: pa.ChunkedArray, base: str) -> Iterator[str | None]:
    for uri in uris.cast(pa.string()).to_pylist():
        if uri is None or has_scheme(uri) or uri.startswith("/"):
            yield uri
        elif has_scheme(base):
            yield f"{base.rstrip('/')}/{uri}"
        else:
            yield str(Path(base, uri))
