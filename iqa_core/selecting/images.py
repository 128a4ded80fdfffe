"""Where the images of selected rows are: URIs that mean the same beside another manifest, and inline bytes.

A relative URI is one within the folder of the manifest that was scored. What that manifest holds itself
(an ``image`` column), or what an output does not repeat (the signatures of URLs), is read from it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from iqa_core.columns import IMAGE, MANIFEST_FILE, MANIFEST_ROW, STATUS, URI
from iqa_core.errors import InputError, Status
from iqa_core.redaction import redact
from iqa_core.selecting.sources import manifest_folder
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.manifest_files import find_files
from iqa_core.tables.manifest_reading import DATA, read_slice
from iqa_core.tables.slices import RowGroupSlice

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ImageSource", "open_images"]

#: What a URI begins with that does not depend on a folder; also anything with a scheme.
_ABSOLUTE = r"^(/|file:|local:)|://|::"
_ROWS = 1000


@dataclass(frozen=True)
class ImageSource:
    """The manifest that was scored, as far as it says where the images are.

    Attributes:
        base: The folder that its relative URIs refer to; None if unknown.
        folder: Where its files are, if rows are to be read from them again; None to take the scores' URIs.
        files: Row groups of its files, by name.
    """

    base: str | None
    folder: Folder | None = None
    files: tuple[str, ...] = ()

    def located(self, batches: Iterable[pa.RecordBatch], output: Folder) -> Iterator[pa.Table]:
        """Replace URIs by ones that hold for a manifest in another folder, and add inline images.

        Args:
            batches: Rows in the order of their identity.
            output: The folder of the new manifest; local images below it are named relative to it.

        Raises:
            InputError: If a URI is relative to a folder that is not known, a row has none, or the manifest
                has changed.
        """
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if self.folder is None:
                _check_uris(table)
            for piece in self._with_images(table) if self.folder else [table]:
                uris = self._absolute(piece.column(URI), output)
                yield piece.set_column(piece.column_names.index(URI), URI, uris)

    def _absolute(self, uris: pa.ChunkedArray, output: Folder) -> pa.ChunkedArray:
        is_absolute = pc.match_substring_regex(uris, _ABSOLUTE)
        relative = pc.fill_null(pc.invert(is_absolute), False)
        if pc.any(relative).as_py():
            if self.base is None:
                example = uris.filter(relative)[0].as_py()
                raise InputError(
                    f"the uri {redact(example)} is relative to the manifest that was scored, but the run "
                    "did not record where that was: give --manifest"
                )
            joined = pc.binary_join_element_wise(self.base.rstrip("/"), uris, "/")
            uris = pc.if_else(relative, joined, uris)
        if not output.is_local:
            return uris
        root = f"{output.root}/"
        below = pc.starts_with(uris, root)
        inside = pc.utf8_slice_codeunits(uris, len(root))
        # Nothing that would read as something else.
        plain = pc.invert(pc.match_substring_regex(inside, _ABSOLUTE))
        return pc.if_else(pc.and_(below, plain), inside, uris)

    def _with_images(self, table: pa.Table) -> Iterator[pa.Table]:
        """Read the rows' own URIs and bytes from the manifest."""
        names = table.column(MANIFEST_FILE).to_pylist()
        start = 0
        while start < len(table):
            stop = start
            while stop < len(table) and names[stop] == names[start]:
                stop += 1
            yield from self._of_file(names[start], table.slice(start, stop - start))
            start = stop

    def _of_file(self, name: str, rows: pa.Table) -> Iterator[pa.Table]:
        folder = self.folder
        if folder is None or name not in self.files:
            raise InputError(f"manifest file {name} is gone: restore it, or give --manifest")
        numbers = rows.column(MANIFEST_ROW).to_pylist()
        try:
            with folder.fs.open(folder.path(name), "rb") as file:
                metadata = pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"manifest file {name} can't be read ({redact(str(error))})"
            ) from error
        if numbers[-1] >= metadata.num_rows:
            raise InputError(
                f"manifest file {name} has {metadata.num_rows:,} rows, but row {numbers[-1]:,} was scored: "
                "restore it, or give --manifest"
            )
        wanted = RowGroupSlice(name, 0, metadata.num_row_groups, 0, BitMap(numbers).serialize())
        done = 0
        for table in read_slice(folder, wanted, (), pa.string(), _ROWS, skip_damaged=False):
            piece = rows.slice(done, len(table))
            if not piece.column(MANIFEST_ROW).equals(table.column(MANIFEST_ROW)):
                raise RuntimeError(f"rows of {name} came in another order")
            done += len(table)
            piece = piece.set_column(piece.column_names.index(URI), URI, table.column(URI))
            yield piece.append_column(IMAGE, table.column(DATA))


def open_images(plan: Mapping[str, Any], given: str | None = None) -> ImageSource:
    """Find out where the images of an output's rows are.

    Args:
        plan: What the run recorded of its manifest.
        given: The manifest, if it was moved since, or if its own URIs are to be taken.

    Raises:
        InputError: If ``given`` can't be read.
    """
    uri = given or plan.get("manifest")
    base = manifest_folder(dict(plan))
    if not isinstance(uri, str):
        return ImageSource(base)
    try:
        folder, names, _, _ = find_files(uri if has_scheme(uri) else str(_path(uri)))
        columns = _columns(folder, names)
    except (InputError, OSError, pa.ArrowException):
        if given:
            raise
        return ImageSource(base)
    base = folder.uri if given else base or folder.uri
    if given or IMAGE in columns:
        return ImageSource(base, folder, tuple(names))
    return ImageSource(base)


def _check_uris(rows: pa.Table) -> None:
    """Check that rows that were scored have a URI; others may never have had one."""
    scored = pc.equal(rows.column(STATUS), Status.OK.value)
    if pc.any(pc.and_(scored, pc.is_null(rows.column(URI)))).as_py():
        raise InputError(
            "some of the selected rows have no uri, as their images are in the manifest that was "
            "scored, which can't be read: give it as --manifest"
        )


def _path(path: str) -> Any:  # noqa: ANN401
    from pathlib import Path

    return Path(path).absolute()


def _columns(folder: Folder, names: Sequence[str]) -> list[str]:
    with folder.fs.open(folder.path(names[0]), "rb") as file:
        columns: list[str] = pq.read_schema(file).names
    return columns
