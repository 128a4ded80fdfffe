"""The sink of the package: part files that are their own commit records, and ``_run/`` beside them.

A part file appears whole or not at all and carries its rows with their identity. So what is done
follows from the part files alone, and the same command resumes. ``_run/`` holds the
plan (the manifest's files), the configuration, the fingerprint and the summary.

Runs of several shards of one manifest (:mod:`iqa_core.tables.manifest_shard`) write to one output at the
same time: each holds a lease on its rows, names its part files after its shard, and replaces only files
whose rows are all its own.
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

from iqa_core.columns import MANIFEST_FILE, STATUS
from iqa_core.errors import InputError, Status
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.tables.audit import Audit, audit, read_committed
from iqa_core.tables.output_checks import check_fingerprint, check_place
from iqa_core.tables.part_content import PartContent
from iqa_core.tables.part_encoding import write_options
from iqa_core.tables.parts import PARTS, PartFiles
from iqa_core.tables.plan import (
    PLAN,
    check_plan,
    damaged_name,
    read_damaged,
    read_plan,
    with_damaged,
)
from iqa_core.tables.rows import RowSet
from iqa_core.tables.unscored import unscored_as_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from iqa_core.tables.audit import Committed
    from iqa_core.tables.manifest import Manifest

__all__ = ["FINGERPRINT", "Output", "digest", "stored_fingerprint"]

FINGERPRINT = "_run/fingerprint.json"
_CONFIG = "_run/config.json"


def stored_fingerprint(uri: str) -> dict[str, Any]:
    """Return the fingerprint of the rows that an output holds; empty if it holds none.

    Args:
        uri: The output's folder. A fingerprint without rows, of a run that wrote none, does not
            count.

    Raises:
        InputError: If it is damaged.
    """
    folder = Folder.given(uri, "output")
    if not (folder.exists(FINGERPRINT) and folder.list(PARTS)):
        return {}
    return folder.read_object(FINGERPRINT)


def digest(fingerprint: Mapping[str, Any]) -> str:
    """Return a short digest of a fingerprint, which each part file carries."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


class Output:
    """A run's output folder. Opening it checks it and writes nothing.

    Args:
        uri: Folder, local or on any fsspec filesystem.
        manifest: The manifest that is scored into it, or one shard of it: then only the shard's rows
            are committed, audited and dropped.
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
        self.folder = Folder.given(uri, "output")
        self._parts = PartFiles(self.folder)
        self._lease_seconds = lease_seconds
        self._manifest = manifest
        self._fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back
        check_place(self.folder, manifest)
        self._check_earlier()
        shard = manifest.shard
        ranges = {file.name: file.wanted for file in manifest.files if file.wanted}
        self._within = None if shard is None else ranges
        self._committed = self._read_committed()
        self._label = f"-{shard.label}" if shard else ""
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._name = f"{now}-{uuid.uuid4().hex[:8]}{self._label}"
        self._own: list[str] = []
        self._begun = False
        self._lease: OutputLease | None = None

    def _check_earlier(self) -> None:
        """Check that the folder holds nothing else than rows of this manifest and fingerprint."""
        uri = self.folder.uri
        if stored := stored_fingerprint(uri):
            check_fingerprint(uri, stored, self._fingerprint)
            if plan := read_plan(self.folder):
                check_plan(uri, plan, self._manifest, read_damaged(self.folder))
        elif self.folder.list("*.parquet"):
            raise InputError(
                f"--output {uri} holds Parquet files, but no {FINGERPRINT}: give a new or empty "
                "folder"
            )

    def _read_committed(
        self, known: Committed | None = None, deeper: Sequence[str] = ()
    ) -> Committed:
        return read_committed(self._parts, known, deeper=deeper, within=self._within)

    def committed(self) -> Committed:
        """Return the rows of the part files: those of earlier runs and those written since.

        Another thread than that of :meth:`write` may read counts of it.
        """
        return self._committed

    @contextmanager
    def start(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Take a lease on the output's rows, and write plan, configuration and fingerprint.

        Args:
            config: The run's options.

        Raises:
            InputError: If another driver holds the lease, or the folder can't be written.
        """
        with ExitStack() as stack:
            with self._os_errors_as_input_errors():
                claim = self._manifest.claim(digest(self._fingerprint))
                lease = OutputLease(self.folder, self._lease_seconds, claim=claim)
                self._lease = stack.enter_context(lease)
                stack.callback(setattr, self, "_lease", None)
                self.folder.sweep(f"part-*{self._label}-*.parquet" if self._label else PARTS)
                # Part files may have come or gone before the lease was ours.
                self._check_earlier()
                self._committed = self._read_committed(self._committed)
                if self._committed.rows.duplicates:
                    self.reconcile()
                self.folder.write_json(PLAN, self._manifest.plan())
                self.folder.write_json(_CONFIG, config)
                self.folder.write_json(FINGERPRINT, self._fingerprint)
                if self._manifest.shard is None:  # else another shard may be about to commit
                    stack.callback(self._forget_if_empty)
            yield

    def _forget_if_empty(self) -> None:
        """Remove plan, configuration and fingerprint if the run has written no rows, or begun to."""
        if not (self._committed.parts or self._begun):
            for name in (FINGERPRINT, _CONFIG, PLAN, damaged_name(None)):
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

        A row that is ``ok`` without a finite score becomes a ``model_error``. All calls must come from
        one thread at a time, which need not be the one of :meth:`start`.

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
        name = f"part-{self._name}-{len(self._own):05d}.parquet"
        part = self._write_part(name, table)
        self._own.append(name)
        self._committed.add(part)

    def _write_part(self, name: str, table: pa.Table) -> PartContent:
        part = PartContent.of(name, table, digest(self._fingerprint))
        buffer = io.BytesIO()
        table = table.replace_schema_metadata(part.metadata())
        pq.write_table(table, buffer, **write_options(table.schema))
        self._begun = True  # it may get there even where this run does not live to see it
        with self._os_errors_as_input_errors():
            self.folder.write(name, buffer.getvalue())
        return part

    def drop(self, statuses: Sequence[str]) -> int:
        """Remove the rows with these statuses from the part files, so that they are done again.

        Part files are replaced one by one, each whole: a crash half-way leaves no row twice. The run
        of a shard replaces only files whose rows are all its own.

        Returns:
            The number of rows.

        Raises:
            InputError: If rows of other shards are in a file that would have to be replaced.
        """
        if not any(self._committed.statuses[status] for status in statuses):
            return 0
        own, shared = self._own_and_shared()
        wanted = pa.array(list(statuses), pa.string())

        def other(table: pa.Table) -> pa.Table:
            return table.filter(pc.invert(pc.is_in(table.column(STATUS), wanted)))

        blocking = [
            part.name for part in shared if any(part.statuses.get(status) for status in statuses)
        ]
        if blocking:
            raise InputError(
                f"rows to retry of {self._manifest.shard} are in {len(blocking):,} part files that hold "
                f"rows of other shards, too, such as {blocking[0]}: retry once without --shard, or leave "
                "out --retry-errors"
            )
        return self._rewrite(own, other)

    def reconcile(self) -> int:
        """Remove duplicate rows from the later part files; return their number.

        Two drivers that wrote the same rows had the same fingerprint, so the rows are equal. Of a
        shard, duplicates stay in files that hold rows of other shards, too.
        """
        own, shared = self._own_and_shared()
        seen = RowSet()
        for part in shared:
            seen.update(part.rows)

        def first(table: pa.Table) -> pa.Table:
            new = table.filter(seen.missing(table))
            seen.add(new)
            return new

        return self._rewrite(own, first)

    def _own_and_shared(self) -> tuple[list[str], list[PartContent]]:
        """Return the part files that this run may replace, and those with rows of other shards, too.

        Of the latter, the contents are those rows that are this shard's.
        """
        names = sorted(self._committed.parts)
        if self._within is None:
            return names, []
        own, shared = [], []
        for name in names:
            try:
                part = self._parts.content(name, within=self._within)
                rows = len(self._parts.content(name).rows) if len(part.rows) else 0
            except InputError:
                if self.folder.exists(name):
                    raise
                continue  # the driver of another shard has taken all of its rows out
            if not len(part.rows):
                continue
            if len(part.rows) == rows:
                own.append(name)
            else:
                shared.append(part)
        return own, shared

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
            self._committed = self._read_committed()
        return removed

    def audit(self) -> Audit:
        """Read the part files again, and compare their rows with the manifest.

        The identity columns are read of the files that this run has written, and the rows that their
        footers state of all others. Rows that a second driver wrote as well are removed.
        """
        self._committed = self._read_committed(deeper=self._own)
        if self._committed.rows.duplicates and self._lease is not None:
            self.reconcile()
        return audit(self._manifest, self._committed.rows)

    def note_damaged(self, names: Sequence[str]) -> None:
        """Record manifest files whose data are damaged, so that they can be restored.

        Raises:
            InputError: If it can't be written.
        """
        if not names:
            return
        before = read_damaged(self.folder)
        after = with_damaged(before, self._manifest, names)
        if after != before:
            with self._os_errors_as_input_errors():
                self.folder.write_json(damaged_name(self._manifest.shard), after)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary of a run; each shard has its own."""
        name = f"_run/summary{self._label}.json"
        with self._os_errors_as_input_errors():
            self.folder.write_json(name, summary)
