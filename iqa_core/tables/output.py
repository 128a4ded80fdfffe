"""The sink of the package: part files that are their own commit records, and ``_run/`` beside them.

A part file appears whole or not at all and carries its rows with their identity. So what is done
follows from the part files alone, and the same command resumes. ``_run/`` holds the
plan (the manifest's files), the configuration, the fingerprint and the summary.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.columns import IDENTITY, MANIFEST_FILE, STATUS
from iqa_core.errors import InputError, Status
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.tables.audit import Audit, audit, read_committed
from iqa_core.tables.parts import PARTS, PartContent, PartFiles, count_statuses, part_metadata
from iqa_core.tables.plan import DAMAGED, PLAN, check_plan, read_damaged, with_damaged
from iqa_core.tables.rows import RowSet
from iqa_core.tables.unscored import unscored_as_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from iqa_core.tables.audit import Committed
    from iqa_core.tables.manifest import Manifest

__all__ = ["FINGERPRINT", "Output", "digest", "stored_fingerprint"]

FINGERPRINT = "_run/fingerprint.json"
_CONFIG = "_run/config.json"
_SUMMARY = "_run/summary.json"


def stored_fingerprint(uri: str) -> dict[str, Any]:
    """Return the fingerprint of the rows that an output holds; empty if it holds none.

    Args:
        uri: The output's folder. A fingerprint without rows, of a run that wrote none, does not
            count.
    """
    folder = Folder.of(uri)
    if not (folder.exists(FINGERPRINT) and folder.list(PARTS)):
        return {}
    found: dict[str, Any] = folder.read_json(FINGERPRINT)
    return found


def digest(fingerprint: Mapping[str, Any]) -> str:
    """Return a short digest of a fingerprint, which each part file carries."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


class Output:
    """A run's output folder. Opening it checks it and writes nothing.

    Args:
        uri: Folder, local or on any fsspec filesystem.
        manifest: The manifest that is scored into it.
        fingerprint: What makes scores comparable: rows of different fingerprints never mix.
        lease_seconds: See :class:`iqa_core.storage.lease.OutputLease`.

    Attributes:
        folder: The folder.

    Raises:
        InputError: If the folder holds something else, another run's scores, or those of a manifest
            that has since changed.
    """

    def __init__(
        self,
        uri: str,
        manifest: Manifest,
        fingerprint: Mapping[str, Any],
        lease_seconds: float = 30.0,
    ) -> None:
        self.folder = Folder.of(uri)
        self._parts = PartFiles(self.folder)
        self._lease_seconds = lease_seconds
        self._manifest = manifest
        self._fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back
        _check_place(self.folder, manifest)
        if stored := stored_fingerprint(uri):
            _check_fingerprint(uri, stored, self._fingerprint)
            if self.folder.exists(PLAN):
                plan = self.folder.read_json(PLAN)
                check_plan(uri, plan, manifest, read_damaged(self.folder))
        elif self.folder.list("*.parquet"):
            raise InputError(
                f"--output {uri} holds Parquet files, but no {FINGERPRINT}: give a new or empty "
                "folder"
            )
        self._committed = read_committed(self._parts)
        self._name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        self._written = 0
        self._lease: OutputLease | None = None

    def committed(self) -> Committed:
        """Return the rows of the part files: those of earlier runs and those written since."""
        return self._committed

    @contextmanager
    def start(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Take the output's lease, and write plan, configuration and fingerprint.

        Args:
            config: The run's options.

        Raises:
            InputError: If another driver holds the lease, or the folder can't be written.
        """
        with ExitStack() as stack:
            with self._os_errors_as_input_errors():
                self._lease = stack.enter_context(OutputLease(self.folder, self._lease_seconds))
                stack.callback(setattr, self, "_lease", None)
                self.folder.sweep(PARTS)
                # Part files may have come or gone before the lease was ours.
                self._committed = read_committed(self._parts, self._committed)
                if self._committed.rows.duplicates:
                    self.reconcile()
                self.folder.write_json(PLAN, self._manifest.plan())
                self.folder.write_json(_CONFIG, config)
                self.folder.write_json(FINGERPRINT, self._fingerprint)
                stack.callback(self._forget_if_empty)
            yield

    def _forget_if_empty(self) -> None:
        """Remove plan, configuration and fingerprint if the run committed nothing."""
        if not self._committed.parts:
            for name in (FINGERPRINT, _CONFIG, PLAN, DAMAGED):
                with suppress(OSError):  # without rows they do not count
                    self.folder.remove(name)

    @contextmanager
    def _os_errors_as_input_errors(self) -> Iterator[None]:
        """Raise a full disk, a revoked permission or an unreachable store as an InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"--output {self.folder.uri} can't be written ({redact(str(error))}); what was written "
                "before is safe: fix this, then the same command resumes"
            ) from error

    def write(self, table: pa.Table) -> None:
        """Write finished rows as one part file; once this returns they are committed.

        A row that is ``ok`` without a finite score becomes a ``model_error``.

        Raises:
            InputError: If it can't be written; none of these rows is committed then.
        """
        if self._lease is None:
            raise RuntimeError("rows can only be written within `start`")
        with self._os_errors_as_input_errors():
            self._lease.check()
        table = unscored_as_errors(table)
        lost = table.filter(pc.equal(table.column(STATUS), Status.UNREADABLE.value))
        self.note_damaged(lost.column(MANIFEST_FILE).unique().to_pylist())
        name = f"part-{self._name}-{self._written:05d}.parquet"
        part = self._write_part(name, table)
        self._written += 1
        self._committed.add(part)

    def _write_part(self, name: str, table: pa.Table) -> PartContent:
        identities = table.select(list(IDENTITY))
        part = PartContent(name, identities, count_statuses(table), digest(self._fingerprint))
        buffer = io.BytesIO()
        metadata = part_metadata(part.statuses, digest(self._fingerprint))
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        with self._os_errors_as_input_errors():
            self.folder.write(name, buffer.getvalue())
        return part

    def drop(self, statuses: Sequence[str]) -> int:
        """Remove the rows with these statuses from the part files, so that they are done again.

        Part files are replaced one by one, each whole: a crash half-way leaves no row twice.

        Returns:
            The number of rows.
        """
        if not any(self._committed.statuses[status] for status in statuses):
            return 0

        def other(table: pa.Table) -> pa.Table:
            wanted = pa.array(list(statuses), pa.string())
            return table.filter(pc.invert(pc.is_in(table.column(STATUS), wanted)))

        return self._rewrite(sorted(self._committed.parts), other)

    def reconcile(self) -> int:
        """Remove duplicate rows from the later part files; return their number.

        Two drivers that wrote the same rows had the same fingerprint, so the rows are equal.
        """
        seen = RowSet()

        def first(table: pa.Table) -> pa.Table:
            new = table.filter(seen.missing(table))
            seen.add(new)
            return new

        return self._rewrite(sorted(self._committed.parts), first)

    def _rewrite(self, names: Sequence[str], keep: Callable[[pa.Table], pa.Table]) -> int:
        removed = 0
        for name in names:
            with self._os_errors_as_input_errors():
                if self._lease is not None:
                    self._lease.check()
            table = self._parts.read(name)
            kept = keep(table)
            if len(kept) == len(table):
                continue
            removed += len(table) - len(kept)
            if len(kept):
                self._write_part(name, kept)
            else:
                self.folder.remove(name)
        if removed:
            self._committed = read_committed(self._parts)
        return removed

    def audit(self) -> Audit:
        """Read the part files again, and compare them with the manifest.

        Rows that a second driver wrote as well are removed.
        """
        self._committed = read_committed(self._parts)
        if self._committed.rows.duplicates and self._lease is not None:
            self.reconcile()
        return audit(self._manifest, self._committed.rows)

    def note_damaged(self, names: Sequence[str]) -> None:
        """Record manifest files whose data are damaged, so that they can be restored.

        Raises:
            InputError: If it can't be written.
        """
        before = read_damaged(self.folder)
        after = with_damaged(before, self._manifest, names)
        if after != before:
            with self._os_errors_as_input_errors():
                self.folder.write_json(DAMAGED, after)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary of a run."""
        with self._os_errors_as_input_errors():
            self.folder.write_json(_SUMMARY, summary)


def _check_place(folder: Folder, manifest: Manifest) -> None:
    if folder.is_local and folder.fs.isfile(folder.root):
        raise InputError(
            argument="output",
            value=folder.uri,
            limit="a folder, not a file",
            fix="give another path",
        )
    # A glob or a single file does not see what is new beside it.
    searched = manifest.folder.fs.isdir(manifest.folder.fs._strip_protocol(manifest.uri))
    same = type(folder.fs) is type(manifest.folder.fs)
    if searched and same and f"{folder.root}/".startswith(f"{manifest.folder.root}/"):
        raise InputError(
            argument="output",
            value=folder.uri,
            limit=f"outside of the manifest's folder {manifest.uri}",
            fix="the next run would read the scores as a manifest; give another folder",
        )


def _check_fingerprint(uri: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in [*wanted, *stored]:
        if stored.get(key) != wanted.get(key):
            raise InputError(
                f"--output {uri} holds another run's rows, with {key} {stored.get(key)!r} where this "
                f"run has {wanted.get(key)!r}, and the two don't mix: give another --output, or "
                "the same options and versions"
            )
