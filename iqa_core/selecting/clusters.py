"""A file of clusters of duplicates: the identity of rows, and a column ``cluster``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.columns import IDENTITY, IMAGE
from iqa_core.errors import InputError
from iqa_core.redaction import error_line
from iqa_core.selecting.engine import is_readable, same_row
from iqa_core.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pyarrow.dataset as ds

    from iqa_core.selecting.engine import Engine

__all__ = ["Clusters", "open_clusters"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters.

    Attributes:
        uri: The file.
        dataset: Its rows, with the identity.
        schema: What it adds to the columns of an output.
    """

    uri: str
    dataset: ds.Dataset
    schema: pa.Schema

    @property
    def columns(self) -> list[str]:
        """Names of what it adds."""
        return list(self.schema.names)

    def check(self, engine: Engine) -> None:
        """Check the rows, registered as ``cluster_rows``, against those of ``output_0``.

        Raises:
            InputError: If a row is there twice, or none is in the output.
        """
        ids = ", ".join(IDENTITY)
        rows, distinct = engine.run(
            f"SELECT sum(c), count(*) FROM (SELECT count(*) AS c FROM cluster_rows GROUP BY {ids})"
        )[0]
        if (rows or 0) > distinct:
            raise InputError(
                f"--clusters {self.uri} has {int(rows) - distinct:,} rows twice: each row must be in one "
                "cluster at most"
            )
        matched = engine.value(
            f"SELECT count(*) FROM cluster_rows c SEMI JOIN output_0 o ON {same_row('c', 'o')}"
        )
        if rows and not matched:
            raise InputError(
                f"--clusters {self.uri} has no row of --scores: give the clusters of the same manifest"
            )


def open_clusters(uri: str, taken: Collection[str], others: Collection[str] = ()) -> Clusters:
    """Open a Parquet file of clusters.

    Args:
        uri: Path or URI.
        taken: Columns of the output; other columns than these are added to it.
        others: Names that further outputs are known by, which are columns of the selection, too.

    Raises:
        InputError: If it can't be read, lacks a column, or would give two columns of one name.
    """
    import pyarrow.dataset as ds  # imports pandas, which takes half a second

    folder, name = Folder.of_file(uri, "clusters")
    try:
        dataset = ds.dataset(folder.path(name), filesystem=folder.fs, format="parquet")
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"--clusters {uri} can't be read ({error_line(error)}): give a Parquet file"
        ) from error
    for column in (*IDENTITY, "cluster"):
        if column not in dataset.schema.names:
            raise InputError(
                f"--clusters {uri} has no column {column!r}, only {', '.join(dataset.schema.names)}: give "
                "a file with manifest_file, manifest_row and cluster"
            )
    _check_names(uri, dataset.schema.names, others)
    lower = {column.lower() for column in (*taken, *IDENTITY, IMAGE)}
    if "cluster" in lower:
        raise InputError(
            f"--clusters {uri} has the column cluster, as --scores has: leave out --clusters to "
            "use that one"
        )
    added = [f for f in dataset.schema if f.name.lower() not in lower and is_readable(f.type)]
    wanted = [dataset.schema.field(name) for name in IDENTITY] + added
    return Clusters(uri, dataset.replace_schema(pa.schema(wanted)), pa.schema(added))


def _check_names(uri: str, names: Sequence[str], others: Collection[str]) -> None:
    """Refuse names that two columns of the selection would have; SQL takes ``KIND`` for ``kind``."""
    seen: dict[str, str] = {}
    for name in names:
        if first := seen.get(name.lower()):
            raise InputError(
                f"--clusters {uri} has two columns of one name, {first} and {name} (case does not count): "
                "rename or drop one of them"
            )
        seen[name.lower()] = name
    for other in others:
        if found := seen.get(other.lower()):
            raise InputError(
                f"--clusters {uri} has a column {found}, and an output of --scores is known as {other}: "
                "give the output another name, such as second=O"
            )
    if own := next((name for name in names if name.lower().startswith("_iqa_")), None):
        raise InputError(
            f"--clusters {uri} has a column {own}, but names of _iqa_ are the command's own: rename it"
        )
