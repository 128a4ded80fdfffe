"""The explicit schema of an output's rows: its own columns, kept columns, and extra columns of a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.columns import OWN_NAMES, Contents, fields
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from iqa_core.tables.manifest import Manifest

__all__ = [
    "ExtraColumn",
    "check_extra",
    "is_extra",
    "output_schema",
    "schema_with",
    "table_with",
]

_DOC = b"doc"


@dataclass(frozen=True)
class ExtraColumn:
    """A further column of an output, computed from the finished rows.

    It is part of the fingerprint, so rows with and without it never mix. The report shows it like a
    kept column. `iqa rescore` does not carry it over: it belongs to the rows that it is computed from.

    >>> import pyarrow.compute as pc
    >>> aspect = ExtraColumn(
    ...     "aspect",
    ...     pa.float32(),
    ...     "width divided by height",
    ...     lambda rows: pc.divide(rows["width"].cast("float32"), rows["height"]),
    ... )
    >>> rows = pa.table({"width": [300, None], "height": [200, None]})
    >>> table_with(rows, [aspect])["aspect"].to_pylist()
    [1.5, None]

    Attributes:
        name: Its name, which no other column of the output has.
        type: Its Arrow type.
        doc: What it holds, in one line.
        compute: Takes finished rows (N), with every other column of the output, and returns N values;
            rows that failed have null in the score columns.
        digest: Of what the values follow from beside the rows, for the fingerprint; empty if nothing.
        check: Called with the run's fingerprint; raises :class:`InputError` if the column is not for it.
    """

    name: str
    type: pa.DataType
    doc: str
    compute: Callable[[pa.Table], pa.Array | pa.ChunkedArray]
    digest: str = ""
    check: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def field(self) -> pa.Field:
        """Its Arrow field, whose metadata have the documentation; kept columns have none."""
        digest = {b"digest": self.digest.encode()} if self.digest else {}
        return pa.field(self.name, self.type, metadata={_DOC: self.doc.encode()} | digest)


def is_extra(field: pa.Field) -> bool:
    """Return whether a field of part files is an :class:`ExtraColumn`, and no kept column."""
    return _DOC in (field.metadata or {})


def output_schema(
    manifest: Manifest,
    keep: Sequence[str],
    *,
    pairs: Sequence[str] = (),
    embedding: int | None = None,
    views: int = 0,
    hashes: bool = False,
    crops: int = 1,
    descriptors: bool = False,
) -> pa.Schema:
    """Return the explicit schema of a run's part files.

    Args:
        manifest: Gives the types of ``image_id`` and of the kept columns.
        keep: Columns of the manifest to keep.
        pairs: Names of the prompt pairs; if empty, there are no score columns.
        embedding: Width of the image features, or None to leave them out.
        views: Degraded copies of each image whose features are stored beside its own.
        hashes: Whether each image's hash is stored.
        crops: Number of views that are scored of each image.
        descriptors: Whether each image's descriptor is stored.

    Raises:
        InputError: If a kept column has a name that outputs use themselves, with some options.
    """
    own = fields(
        Contents(
            image_id=manifest.image_id_type,
            pairs=tuple(pairs),
            embedding=embedding,
            views=views,
            hashes=hashes,
            crops=crops,
            descriptors=descriptors,
        )
    )
    for name in keep:
        # Also those that this output lacks: readers would take the column for their own.
        if name in OWN_NAMES:
            raise InputError(
                argument="keep",
                value=name,
                limit="a column whose name no output uses itself",
                fix="leave it out, or rename the manifest's column",
            )
    kept = [manifest.schema.field(name).with_nullable(True).remove_metadata() for name in keep]
    return pa.schema([*own, *kept])


def schema_with(schema: pa.Schema, extra: Sequence[ExtraColumn]) -> pa.Schema:
    """Return a schema with extra columns at its end.

    Raises:
        InputError: If a name is in use already, or is one of the output's own.
    """
    for column in extra:
        if column.name in OWN_NAMES or column.name in schema.names:
            raise InputError(
                f"the extra column {column.name!r} has the name of another column of the output: give "
                "it another name, or leave the other out by naming the columns to carry with --keep"
            )
        schema = schema.append(column.field)
    return schema


def check_extra(extra: Sequence[ExtraColumn], fingerprint: Mapping[str, Any]) -> None:
    """Refuse extra columns that are not for a run's rows.

    Raises:
        InputError: If one is not.
    """
    for column in extra:
        if column.check is not None:
            column.check(fingerprint)


def table_with(table: pa.Table, extra: Sequence[ExtraColumn]) -> pa.Table:
    """Compute the extra columns of finished rows.

    Args:
        table: N rows.
        extra: The columns; each may use those before it.

    Returns:
        The N rows, with these columns at the end.

    Raises:
        InputError: If a column does not have N values, or has values that its type can't hold.
    """
    for column in extra:
        values = column.compute(table)
        try:
            values = values.cast(column.type)
            table = table.append_column(column.field, values)
        except (pa.ArrowException, AttributeError) as error:
            raise InputError(
                f"the extra column {column.name!r} can't be computed "
                f"({' '.join(str(error).split())}): its function must return {len(table):,} values of "
                f"type {column.type} as an Arrow array"
            ) from error
    return table
