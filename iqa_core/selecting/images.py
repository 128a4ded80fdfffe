"""Where the images of selected rows are: URIs that mean the same beside another manifest, and inline bytes.

A relative URI is one within the folder of the manifest that was scored. What that manifest holds itself
(an ``image`` column), or what an output does not repeat (the signatures of URLs), is read from it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from iqa_core.columns import IMAGE, MANIFEST_FILE, MANIFEST_ROW, STATUS, URI
from iqa_core.errors import InputError, Status
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.manifest_files import find_files
from iqa_core.tables.manifest_reading import DATA, read_slice
from iqa_core.tables.plan import check_planned_file, manifest_folder
from iqa_core.tables.slices import RowGroupSlice

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ImageSource", "open_images"]

#: What a URI begins with that does not depend on a folder; also anything with a scheme.
_LOCAL = r"^(/|file:|local:)"
_ABSOLUTE = rf"{_LOCAL}|://|::"
_ROWS = 1000


@dataclass(frozen=True)
class ImageSource:
    """The manifest that was scored, as far as it says where the images are.

    Attributes:
        base: The folder that its relative URIs refer to; None if unknown.
        folder: Where its files are, if rows are to be read from them again; None to take the scores' URIs.
        files: Names of its files.
        planned: What the run recorded of each file, by name.
        moved: Whether the files may be on another store than they were.
        names_none: Whether it says of no image where it is, as bare arrays of features.
        note: What a user should know of it; empty if nothing.
    """

    base: str | None
    folder: Folder | None = None
    files: tuple[str, ...] = ()
    planned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    moved: bool = False
    names_none: bool = False
    note: str = ""

    def located(self, batches: Iterable[pa.RecordBatch], output: Folder) -> Iterator[pa.Table]:
        """Replace URIs by ones that hold for a manifest in another folder, and add inline images.

        Args:
            batches: Rows in the order of their identity.
            output: The folder of the new manifest; local images below it are named relative to it.

        Raises:
            InputError: If a URI is relative to a folder that is not known, or one of this machine in the
                scores of a manifest that is not; a row has none; or the manifest has changed.
        """
        checked: set[str] = set()
        for batch in batches:
            table = pa.Table.from_batches([batch])
            for piece in self._with_images(table, checked) if self.folder else [table]:
                if not self.names_none:
                    _check_uris(piece)
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
        if self.base is not None and has_scheme(self.base):
            _check_none_is_local(uris)
        root = f"{output.root}/"
        below = pc.starts_with(uris, root)
        inside = pc.utf8_slice_codeunits(uris, len(root))
        # Nothing that would read as something else.
        plain = pc.invert(pc.match_substring_regex(inside, _ABSOLUTE))
        return pc.if_else(pc.and_(below, plain), inside, uris)

    def _with_images(self, table: pa.Table, checked: set[str]) -> Iterator[pa.Table]:
        """Read the rows' own URIs and bytes from the manifest, each file of which is checked once."""
        names = table.column(MANIFEST_FILE).to_pylist()
        start = 0
        while start < len(table):
            stop = start
            while stop < len(table) and names[stop] == names[start]:
                stop += 1
            yield from self._of_file(names[start], table.slice(start, stop - start), checked)
            start = stop

    def _of_file(self, name: str, rows: pa.Table, checked: set[str]) -> Iterator[pa.Table]:
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
        if name in self.planned and name not in checked:
            check_planned_file(folder, self.planned[name], metadata, moved=self.moved)
            checked.add(name)
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
            uris = _agreed(piece, table.column(URI))
            piece = piece.set_column(piece.column_names.index(URI), URI, uris)
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
    base = manifest_folder(plan)
    planned = {str(file["name"]): file for file in plan.get("files", [])}
    if not isinstance(uri, str):
        return ImageSource(base)
    if planned and all(name.endswith((".npy", ".npz")) for name in planned) and not given:
        note = "the features that were scored don't say where the images are, nor will the manifest"
        return ImageSource(base, names_none=True, note=note)
    try:
        folder, names, _, _ = find_files(uri if has_scheme(uri) else str(_path(uri)))
        columns = _columns(folder, names)
    except (InputError, OSError, pa.ArrowException):
        if given:
            raise
        note = "the manifest that was scored can't be read: if it holds images, they are not taken along"
        return ImageSource(base, note=note)
    if not given and not {URI, IMAGE} & set(columns):
        return ImageSource(base, names_none=True)
    base = folder.uri if given else base or folder.uri
    if given or IMAGE in columns:
        return ImageSource(base, folder, tuple(names), planned, moved=bool(given))
    return ImageSource(base)


def _check_uris(rows: pa.Table) -> None:
    """Check that rows that were scored have an image; others may never have had one."""
    lacking = pc.and_(pc.equal(rows.column(STATUS), Status.OK.value), pc.is_null(rows.column(URI)))
    if IMAGE in rows.column_names:
        lacking = pc.and_(lacking, pc.is_null(rows.column(IMAGE)))
    if pc.any(lacking).as_py():
        raise InputError(
            "some of the selected rows have no uri, as their images are in the manifest that was "
            "scored, which can't be read: give it as --manifest"
        )


def _check_none_is_local(uris: pa.ChunkedArray) -> None:
    """Check that rows of a remote manifest name no file of this machine.

    In the new manifest, a local one, they could be read.
    """
    local = pc.fill_null(pc.match_substring_regex(uris, _LOCAL), False)
    if pc.any(local).as_py():
        example = redact(str(uris.filter(local)[0].as_py()))
        raise InputError(
            f"the uri {example} names a file of this machine, but the manifest that was scored is a remote "
            "one, whose rows may not: leave such rows out, such as by --where \"not starts_with(uri, '/')\""
        )


def _agreed(rows: pa.Table, theirs: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the manifest's own URIs, and the scores' where it has none; only secrets may differ."""
    ours = rows.column(URI)
    different = pc.fill_null(pc.not_equal(ours, theirs), False)
    if pc.any(different).as_py():
        pairs = zip(*(uris.filter(different).to_pylist() for uris in (ours, theirs)), strict=True)
        for scored, found in pairs:
            if redact(found) != scored:
                raise InputError(
                    f"the manifest has the uri {redact(found)} where {scored} was scored: give --manifest "
                    "the one that was scored, or leave it out"
                )
    return pc.coalesce(theirs, ours)


def _path(path: str) -> Any:  # noqa: ANN401
    from pathlib import Path

    return Path(path).absolute()


def _columns(folder: Folder, names: Sequence[str]) -> list[str]:
    with folder.fs.open(folder.path(names[0]), "rb") as file:
        columns: list[str] = pq.read_schema(file).names
    return columns
