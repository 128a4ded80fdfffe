"""A finished output, opened for export: its rows in tables, and where they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import audit, read_committed
from iqa_core.tables.output import FINGERPRINT, digest
from iqa_core.tables.parts import PARTS, PartFiles
from iqa_core.tables.plan import PLAN, planned_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

__all__ = ["FinishedOutput"]


class FinishedOutput:
    """An output that holds every row of its manifest once, all of one fingerprint.

    Args:
        uri: The output's folder.

    Attributes:
        schema: Its columns.
        rows: Number of its rows.
        manifest: The manifest that was scored, without secrets.
        images: The folder that its relative URIs refer to; None if unknown.

    Raises:
        InputError: If it holds no rows, not all of them, or rows of several fingerprints, or if its plan or
            fingerprint is damaged.
    """

    def __init__(self, uri: str) -> None:
        folder = Folder.given(uri, "scores")
        self._parts = PartFiles(folder, f"--scores {redact(uri)}")
        try:
            self._names = self._parts.names()
            is_run = self._names and folder.exists(FINGERPRINT) and folder.exists(PLAN)
        except OSError as error:
            raise InputError(
                f"--scores {redact(uri)} can't be read: {error_line(error)}"
            ) from error
        if not is_run:
            raise InputError(
                f"--scores {redact(uri)} holds no {PARTS} of a run: give the output of `iqa score`"
            )
        self.schema: pa.Schema = self._parts.schema(self._names[0])
        self.fingerprint: dict[str, Any] = folder.read_object(FINGERPRINT)
        manifest = planned_manifest(folder, self.schema)
        committed = read_committed(self._parts)
        found = audit(manifest, committed.rows)
        if not found.passed:
            raise InputError(
                f"--scores {redact(uri)} is not finished ({found}): run the command that wrote it "
                "again, and then this"
            )
        if foreign := committed.fingerprints - {digest(self.fingerprint)}:
            raise InputError(
                f"--scores {redact(uri)} holds rows of {len(foreign) + 1} fingerprints, which don't mix: "
                "`iqa verify` says more"
            )
        self.rows = manifest.rows
        self.statuses = dict(committed.statuses)
        self.manifest = manifest.uri
        self.images = manifest.place
        self._uri = uri

    def tables(
        self,
        columns: Sequence[str] | None = None,
        on_rows: Callable[[int], object] = lambda _: None,
    ) -> Iterator[pa.Table]:
        """Yield the rows, one row group of a part file at a time.

        Args:
            columns: What to read; None reads everything.
            on_rows: Called with the number of rows of each table once it was taken.

        Raises:
            InputError: If a part file can't be read.
        """
        for table in self._parts.tables(columns, self._names):
            yield table.replace_schema_metadata(None)
            on_rows(len(table))

    def provenance(self) -> dict[str, Any]:
        """Return the fingerprint of the rows and their counts, as JSON holds them."""
        return {
            "source": redact(self._uri),
            "manifest": self.manifest,
            "rows": self.rows,
            "statuses": self.statuses,
            "digest": digest(self.fingerprint),
            "fingerprint": self.fingerprint,
        }

    def properties(self) -> dict[str, str]:
        """Return :meth:`provenance` as texts, for formats whose metadata are texts."""
        document = self.provenance()
        return {
            f"iqa.{key}": value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for key, value in document.items()
        }
