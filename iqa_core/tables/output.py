"""The output of a run: part files that are their own commit records, and ``_run/`` beside them.

A part file appears whole or not at all and carries its rows with their identity. So what is done
can be read off the part files alone, and the same command again does the rest. ``_run/`` holds the
plan (the manifest's files), the configuration, the fingerprint and the summary.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.columns import HEIGHT, IDENTITY, IMAGE_ID, MANIFEST_FILE, URI, WIDTH
from iqa_core.errors import InputError, Status
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.storage.lease import OutputLease
from iqa_core.tables.manifest_files import footer_digest
from iqa_core.tables.rows import RowSet
from iqa_core.tables.unscored import unscored_as_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from iqa_core.tables.manifest import Manifest

__all__ = [
    "FINGERPRINT",
    "PARTS",
    "PLAN",
    "Audit",
    "Committed",
    "Output",
    "audit",
    "begun_with",
    "check_plan",
    "describe_lost",
    "digest",
    "output_schema",
    "read_committed",
    "read_damaged",
]

PARTS = "part-*.parquet"
FINGERPRINT = "_run/fingerprint.json"
PLAN = "_run/plan.json"
_CONFIG = "_run/config.json"
_SUMMARY = "_run/summary.json"
_DAMAGED = "_run/damaged.json"
_STATED = b"iqa"
_READERS = 16
_EXAMPLES = 5


def output_schema(
    manifest: Manifest,
    keep: Sequence[str],
    *,
    pairs: Sequence[str] = (),
    embedding: int | None = None,
    views: int = 0,
) -> pa.Schema:
    """Return the one explicit schema of a run's part files.

    Args:
        manifest: Gives the types of ``image_id`` and of the kept columns.
        keep: Columns of the manifest to carry along.
        pairs: Names of the prompt pairs; none leaves out the score columns.
        embedding: Width of the image features, or None to leave them out.
        views: Degraded copies of each image whose features are stored beside its own.

    Raises:
        InputError: If a kept column would have the name of one of the output's own.
    """
    fields = [
        pa.field(MANIFEST_FILE, pa.string(), nullable=False),
        pa.field("manifest_row", pa.int64(), nullable=False),
        pa.field(IMAGE_ID, manifest.image_id_type),
        pa.field(URI, pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
    if pairs:
        each = pa.struct([(name, pa.float32()) for name in pairs])
        fields += [
            pa.field("score", pa.float32()),
            pa.field("scores", each),
            pa.field("margins", each),
        ]
    fields += [pa.field(WIDTH, pa.int32()), pa.field(HEIGHT, pa.int32())]
    if embedding is not None:
        fields.append(pa.field("embedding", pa.list_(pa.float16(), embedding)))
    if embedding is not None and views:
        fields.append(pa.field("views", pa.list_(pa.float16(), views * embedding)))
        fields.append(pa.field("view_levels", pa.list_(pa.int8(), views)))
    own = {one.name for one in fields}
    for name in keep:
        if name in own:
            raise InputError(
                f"--keep {name!r} is the name of a column that the output has anyway: leave it out, "
                "or rename the manifest's column"
            )
        fields.append(manifest.schema.field(name).with_nullable(True).remove_metadata())
    return pa.schema(fields)


def begun_with(uri: str) -> dict[str, Any]:
    """Return the fingerprint of the rows that an output holds; empty if it holds none yet.

    Args:
        uri: The output's folder. A fingerprint without rows, of a run that ended before its first,
            binds nobody.
    """
    folder = Folder.of(uri)
    if not (folder.exists(FINGERPRINT) and folder.list(PARTS)):
        return {}
    found: dict[str, Any] = folder.read_json(FINGERPRINT)
    return found


class Committed:
    """What the part files of an output hold.

    Attributes:
        rows: The rows.
        statuses: Rows by status.
        parts: Names of the part files, each with what tells when it was replaced.
        fingerprints: Digests of the fingerprints that the part files state.
    """

    def __init__(self) -> None:
        self.rows = RowSet()
        self.statuses: Counter[str] = Counter()
        self.parts: dict[str, str | None] = {}
        self.fingerprints: set[str] = set()

    def add(
        self, name: str, identities: pa.Table, stated: Mapping[str, Any], stamp: str | None = None
    ) -> None:
        """Add a part file by its rows' identities and what its metadata states."""
        self.rows.add(identities)
        self.statuses.update(stated["statuses"])
        self.parts[name] = stamp
        if "fingerprint" in stated:
            self.fingerprints.add(stated["fingerprint"])


def read_committed(
    folder: Folder, known: Committed | None = None, *, everything: bool = False
) -> Committed:
    """Read the identities and statuses of all part files.

    Args:
        folder: The output.
        known: What was read before; only newer part files are read then, unless some were replaced.
        everything: Read all columns, to see that the files are whole.

    Raises:
        InputError: If a part file can't be read.
    """

    def open_and_read(name: str) -> tuple[str, pa.Table, Mapping[str, Any]]:
        with folder.fs.open(folder.path(name), "rb") as handle:
            file = pq.ParquetFile(
                handle, read_dictionary=[MANIFEST_FILE], page_checksum_verification=everything
            )
            stated = json.loads((file.schema_arrow.metadata or {}).get(_STATED, b"{}"))
            counts = stated.get("statuses", {})
            if everything or sum(counts.values()) != file.metadata.num_rows:
                table = file.read() if everything else file.read([*IDENTITY, "status"])
                counts = count_statuses(table)
            else:
                table = file.read([*IDENTITY])
        return name, table.select(list(IDENTITY)), stated | {"statuses": counts}

    def read(name: str) -> tuple[str, pa.Table, Mapping[str, Any]]:
        try:
            return folder.retried(lambda: open_and_read(name))
        except FileNotFoundError as error:
            raise InputError(
                f"part file {name} of {folder.uri} went away while it was read: another run is at work "
                "on this output; wait for it"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"part file {name} of {folder.uri} can't be read ({error}): it was not written by "
                "this program or was damaged since; move it away and run again"
            ) from error

    committed = known or Committed()
    stamps = folder.stamps(PARTS)
    if any(stamps.get(name) != stamp for name, stamp in committed.parts.items()):
        committed = Committed()  # another driver has taken rows out of these
    names = [name for name in stamps if name not in committed.parts]
    with ThreadPoolExecutor(_READERS) as pool:
        # In slices, so that no more than that many tables wait to be added.
        for start in range(0, len(names), 4 * _READERS):
            for found in pool.map(read, names[start : start + 4 * _READERS]):
                committed.add(*found, stamps[found[0]])
    return committed


def digest(fingerprint: Mapping[str, Any]) -> str:
    """Return a short digest of a fingerprint, which each part file states."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


def count_statuses(table: pa.Table) -> dict[str, int]:
    """Return the number of rows of a part file with each status."""
    counts = pc.value_counts(table.column("status")).to_pylist()
    return {count["values"]: count["counts"] for count in counts}


@dataclass(frozen=True)
class Audit:
    """Whether an output holds every row of its manifest exactly once.

    Attributes:
        rows: Rows of the manifest.
        found: Distinct rows of the output that the manifest has.
        twice: Rows that were there before when they came again.
        missing: Rows of the manifest that the output lacks.
        unknown: Rows of the output that the manifest does not have.
        examples: Some missing rows, as ``file:row``.
    """

    rows: int
    found: int
    twice: int
    missing: int
    unknown: int
    examples: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether rows out are exactly rows in."""
        return self.twice == self.missing == self.unknown == 0

    def __str__(self) -> str:
        """Return it as one line."""
        if self.passed:
            return f"{self.rows:,} rows in, {self.found:,} rows out: none missing, none twice"
        missing = f" (such as {', '.join(self.examples)})" if self.examples else ""
        return (
            f"{self.rows:,} rows in, {self.found:,} rows out: {self.missing:,} missing{missing}, "
            f"{self.twice:,} twice, {self.unknown:,} that the manifest does not have"
        )


def audit(manifest: Manifest, rows: RowSet) -> Audit:
    """Compare an output's rows with its manifest."""
    found = 0
    examples: list[str] = []
    for file in manifest.files:
        there = rows.rows(file.name)
        within = there.range_cardinality(0, file.rows)
        found += within
        if within < file.rows and len(examples) < _EXAMPLES:
            examples += [f"{file.name}:{row}" for row in _first_gaps(there, file.rows)]
    return Audit(
        rows=manifest.rows,
        found=found,
        twice=rows.duplicates,
        missing=manifest.rows - found,
        unknown=len(rows) - found,
        examples=tuple(examples[:_EXAMPLES]),
    )


def _first_gaps(there: Any, stop: int) -> Iterator[int]:  # noqa: ANN401 - pyroaring is untyped
    gaps = there.flip(0, stop)
    for count, row in enumerate(gaps):
        if count == _EXAMPLES or row >= stop:
            return
        yield row


class Output:
    """A run's output folder. Opening it checks it and writes nothing.

    Args:
        uri: Folder, local or on any fsspec filesystem.
        manifest: The manifest that is scored into it.
        fingerprint: What makes scores comparable: rows of different fingerprints never mix.

    Attributes:
        committed: What the part files hold, kept up to date by :meth:`commit`.

    Raises:
        InputError: If the folder holds something else, another run's scores, or those of a manifest
            that has since changed.
    """

    def __init__(self, uri: str, manifest: Manifest, fingerprint: Mapping[str, Any]) -> None:
        self.folder = Folder.of(uri)
        self._manifest = manifest
        self._fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back
        _check_place(self.folder, manifest)
        if begun := begun_with(uri):
            _check_fingerprint(uri, begun, self._fingerprint)
            if self.folder.exists(PLAN):
                plan = self.folder.read_json(PLAN)
                check_plan(uri, plan, manifest, read_damaged(self.folder))
        elif self.folder.list("*.parquet"):
            raise InputError(
                f"--output {uri} holds Parquet files, but no {FINGERPRINT}: give a new or empty "
                "folder"
            )
        self.committed = read_committed(self.folder)
        self._name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        self._written = 0
        self._lease: OutputLease | None = None

    def left_to_do(self, retry: Sequence[str] = ()) -> bool:
        """Return whether rows are missing, there twice, or to be done again.

        Args:
            retry: Statuses of rows to do again.
        """
        again = sum(self.committed.statuses[status] for status in retry)
        missing = len(self.committed.rows) < self._manifest.rows
        return bool(missing or again or self.committed.rows.duplicates)

    @contextmanager
    def writing(self, config: Mapping[str, Any], lease_seconds: float) -> Iterator[None]:
        """Take the output's lease, and write plan, configuration and fingerprint.

        Args:
            config: The run's options.
            lease_seconds: See :class:`iqa_core.storage.lease.OutputLease`.

        Raises:
            InputError: If another driver holds the lease, or the folder can't be written.
        """
        with ExitStack() as stack:
            with self._told():
                self._lease = stack.enter_context(OutputLease(self.folder, lease_seconds))
                stack.callback(setattr, self, "_lease", None)
                self.folder.sweep(PARTS)
                # What came, and what was taken out, before the lease was ours.
                self.committed = read_committed(self.folder, self.committed)
                if self.committed.rows.duplicates:
                    self.reconcile()
                self.folder.write_json(PLAN, self._manifest.plan())
                self.folder.write_json(_CONFIG, config)
                self.folder.write_json(FINGERPRINT, self._fingerprint)
                stack.callback(self._forget_if_empty)
            yield

    def _forget_if_empty(self) -> None:
        """Leave no plan, configuration and fingerprint of a run that committed nothing."""
        if not self.committed.parts:
            for name in (FINGERPRINT, _CONFIG, PLAN, _DAMAGED):
                with suppress(OSError):  # without rows they bind nobody
                    self.folder.remove(name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a full disk, a revoked permission or a lost store into one line."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"--output {self.folder.uri} can't be written ({redact(str(error))}); what was written "
                "before is safe: mend this and run the same command again"
            ) from error

    def commit(self, table: pa.Table) -> None:
        """Write finished rows as one part file; once this returns they are done.

        A row that is ``ok`` without a finite score becomes a ``model_error``.

        Raises:
            InputError: If it can't be written; none of these rows is done then.
        """
        if self._lease is None:
            raise RuntimeError("rows can only be committed within `writing`")
        with self._told():
            self._lease.check()
        table = unscored_as_errors(table)
        lost = table.filter(pc.equal(table.column("status"), Status.UNREADABLE.value))
        self.note_damaged(lost.column(MANIFEST_FILE).unique().to_pylist())
        name = f"part-{self._name}-{self._written:05d}.parquet"
        stated = self._write_part(name, table)
        self._written += 1
        self.committed.add(name, table.select(list(IDENTITY)), stated)

    def _write_part(self, name: str, table: pa.Table) -> Mapping[str, Any]:
        stated = {"statuses": count_statuses(table), "fingerprint": digest(self._fingerprint)}
        buffer = io.BytesIO()
        metadata = {_STATED: json.dumps(stated).encode()}
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        with self._told():
            self.folder.write(name, buffer.getvalue())
        return stated

    def drop(self, statuses: Sequence[str]) -> int:
        """Take the rows with these statuses out of the part files, so that they are to do again.

        Part files are replaced one by one, each whole: a crash half-way leaves no row twice.

        Returns:
            The number of rows.
        """
        if not any(self.committed.statuses[status] for status in statuses):
            return 0

        def other(table: pa.Table) -> pa.Table:
            wanted = pa.array(list(statuses), pa.string())
            return table.filter(pc.invert(pc.is_in(table.column("status"), wanted)))

        return self._rewrite(sorted(self.committed.parts), other)

    def reconcile(self) -> int:
        """Take rows that are there twice out of the later part files; return their number.

        Two drivers that wrote the same rows had the same fingerprint, so the rows are equal.
        """
        seen = RowSet()

        def first(table: pa.Table) -> pa.Table:
            new = table.filter(seen.missing(table))
            seen.add(new)
            return new

        return self._rewrite(sorted(self.committed.parts), first)

    def _rewrite(self, names: Sequence[str], keep: Callable[[pa.Table], pa.Table]) -> int:
        removed = 0
        for name in names:
            with self._told():
                if self._lease is not None:
                    self._lease.check()
                table = pq.read_table(io.BytesIO(self.folder.read(name)))
            kept = keep(table)
            if len(kept) == len(table):
                continue
            removed += len(table) - len(kept)
            if len(kept):
                self._write_part(name, kept)
            else:
                self.folder.remove(name)
        if removed:
            self.committed = read_committed(self.folder)
        return removed

    def audit(self) -> Audit:
        """Read the part files again, and compare them with the manifest.

        Rows that another driver wrote as well, because it believed itself alone, are taken out.
        """
        self.committed = read_committed(self.folder)
        if self.committed.rows.duplicates and self._lease is not None:
            self.reconcile()
        return audit(self._manifest, self.committed.rows)

    def note_damaged(self, names: Sequence[str]) -> None:
        """Remember manifest files whose data are damaged, so that they can be restored.

        Raises:
            InputError: If it can't be written.
        """
        files = {file.name: file for file in self._manifest.files}
        before = read_damaged(self.folder)
        after = dict(before)
        for name in names:
            if before.get(name, {}).get("digest") != files[name].digest:
                footer = _footer_digest(self._manifest, name)
                after[name] = {"digest": files[name].digest, "footer": footer}
        if after != before:
            with self._told():
                self.folder.write_json(_DAMAGED, after)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary of a run."""
        with self._told():
            self.folder.write_json(_SUMMARY, summary)


def _check_place(folder: Folder, manifest: Manifest) -> None:
    if folder.is_local and folder.fs.isfile(folder.root):
        raise InputError(f"--output {folder.uri} is a file, but must be a folder")
    # A glob or a single file does not see what is new beside it.
    searched = manifest.folder.fs.isdir(manifest.folder.fs._strip_protocol(manifest.uri))
    same = type(folder.fs) is type(manifest.folder.fs)
    if searched and same and f"{folder.root}/".startswith(f"{manifest.folder.root}/"):
        raise InputError(
            f"--output {folder.uri} lies in the manifest's folder {manifest.uri}, so the next run "
            "would read the scores as a manifest: give a folder outside of it"
        )


def _check_fingerprint(uri: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in [*wanted, *stored]:
        if stored.get(key) != wanted.get(key):
            raise InputError(
                f"--output {uri} holds another run's rows, with {key} {stored.get(key)!r} where this "
                f"run has {wanted.get(key)!r}, and the two don't mix: give another --output, or "
                "the same options and versions"
            )


def read_damaged(folder: Folder) -> dict[str, dict[str, str | None]]:
    """Return the manifest files that were found damaged: their digests, and those of their footers."""
    if not folder.exists(_DAMAGED):
        return {}
    damaged: dict[str, dict[str, str | None]] = folder.read_json(_DAMAGED)
    return damaged


def describe_lost(statuses: Mapping[str, int]) -> str:
    """Return a line on rows that damage of the manifest has cost, nothing if there are none."""
    lost = statuses.get(Status.UNREADABLE, 0)
    if not lost:
        return ""
    return (
        f"{lost:,} rows are lost: their data in the manifest are damaged (status {Status.UNREADABLE}); "
        f"once its files are restored, --retry-errors {Status.UNREADABLE} scores them"
    )


def _footer_digest(manifest: Manifest, name: str) -> str | None:
    """Return a digest of the footer that a manifest file has now, None if it can't be read."""
    folder = manifest.folder
    try:
        with folder.fs.open(folder.path(name), "rb") as file:
            return footer_digest(pq.read_metadata(file))
    except (OSError, pa.ArrowException):
        return None


def _is_restored(
    manifest: Manifest, before: Mapping[str, Any], damaged: Mapping[str, str | None]
) -> bool:
    """Return whether a file whose size is as before was damaged then, and only differs in its data."""
    if damaged.get("digest") != before["digest"] or not damaged.get("footer"):
        return False
    return _footer_digest(manifest, before["name"]) == damaged["footer"]


def check_plan(
    uri: str,
    plan: Mapping[str, Any],
    manifest: Manifest,
    damaged: Mapping[str, Mapping[str, str | None]] | None = None,
) -> None:
    """Compare a manifest with what an output's plan remembers of it.

    Args:
        uri: The output, for messages.
        plan: The plan.
        manifest: The manifest as it is now.
        damaged: Of :func:`read_damaged`. Such a file may be restored: its content is another one
            then, of the same size and with the same footer.

    Raises:
        InputError: If a file is gone or has changed; new ones are none of that.
    """
    now = {file["name"]: file for file in manifest.plan()["files"]}
    for before in plan["files"]:
        name = before["name"]
        if name not in now:
            raise InputError(
                f"manifest file {name} is gone from {manifest.uri}, but --output {uri} was begun "
                "with it: put it back, or give another --output"
            )
        for key in ("rows", "size", "digest"):
            # Older outputs have no digest.
            if before.get(key) is not None and now[name][key] not in (before[key], None):
                noted = (damaged or {}).get(name, {})
                if key == "digest" and noted and _is_restored(manifest, before, noted):
                    continue
                raise InputError(
                    f"manifest file {name} of {manifest.uri} has changed: its {key} was {before[key]} "
                    f"when --output {uri} was begun and is {now[name][key]}: put it back, or give "
                    "another --output"
                )
