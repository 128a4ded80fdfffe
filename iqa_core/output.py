"""The output of a run: part files that are their own commit records, and ``_run/`` beside them.

A part file appears whole or not at all and carries its rows with their identity. So what is done
can be read off the part files alone, and the same command again does the rest. ``_run/`` holds the
plan (the manifest's files), the configuration, the fingerprint and the summary.
"""

from __future__ import annotations

import io
import json
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.files import Folder
from iqa_core.rows import RowSet
from iqa_core.schema import HEIGHT, IDENTITY, IMAGE_ID, MANIFEST_FILE, URI, WIDTH, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from iqa_core.manifest import Manifest

__all__ = [
    "FINGERPRINT",
    "PARTS",
    "PLAN",
    "Audit",
    "Committed",
    "Output",
    "audit",
    "output_schema",
    "read_committed",
]

PARTS = "part-*.parquet"
FINGERPRINT = "_run/fingerprint.json"
PLAN = "_run/plan.json"
_CONFIG = "_run/config.json"
_SUMMARY = "_run/summary.json"
_STATUSES = b"iqa.statuses"
_EXAMPLES = 5


def output_schema(
    manifest: Manifest,
    keep: Sequence[str],
    *,
    pairs: Sequence[str] = (),
    embedding: int | None = None,
) -> pa.Schema:
    """Return the one explicit schema of a run's part files.

    Args:
        manifest: Gives the types of ``image_id`` and of the kept columns.
        keep: Columns of the manifest to carry along.
        pairs: Names of the prompt pairs; none leaves out the score columns.
        embedding: Width of the image features, or None to leave them out.

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
    own = {one.name for one in fields}
    for name in keep:
        if name in own:
            raise InputError(
                f"--keep {name!r} is the name of a column that the output has anyway: leave it out, "
                "or rename the manifest's column"
            )
        fields.append(manifest.schema.field(name).with_nullable(True).remove_metadata())
    return pa.schema(fields)


@dataclass
class Committed:
    """What the part files of an output hold.

    Attributes:
        rows: The rows.
        statuses: Rows by status.
        parts: Number of part files.
    """

    rows: RowSet = field(default_factory=RowSet)
    statuses: Counter[str] = field(default_factory=Counter)
    parts: int = 0

    def add(self, identities: pa.Table, statuses: Mapping[str, int]) -> None:
        """Add the rows of one part file."""
        self.rows.add(identities)
        self.statuses.update(statuses)
        self.parts += 1


def read_committed(folder: Folder) -> Committed:
    """Read the identities and statuses of all part files.

    Raises:
        InputError: If one can't be read.
    """

    def read(name: str) -> tuple[pa.Table, Mapping[str, int]]:
        try:
            with folder.fs.open(folder.path(name), "rb") as handle:
                file = pq.ParquetFile(handle, read_dictionary=[MANIFEST_FILE])
                stated = json.loads((file.schema_arrow.metadata or {}).get(_STATUSES, b"{}"))
                known = sum(stated.values()) == file.metadata.num_rows
                table = file.read([*IDENTITY] if known else [*IDENTITY, "status"])
            counts = stated if known else count_statuses(table)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"part file {name} of {folder.uri} can't be read ({error}): it was not written by "
                "this program or was damaged since; move it away and run again"
            ) from error
        return table.select(list(IDENTITY)), counts

    committed = Committed()
    with ThreadPoolExecutor(16) as pool:
        for identities, counts in pool.map(read, folder.list(PARTS)):
            committed.add(identities, counts)
    return committed


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
        if self.folder.exists(FINGERPRINT):
            _check_fingerprint(uri, self.folder.read_json(FINGERPRINT), self._fingerprint)
            if self.folder.exists(PLAN):
                _check_plan(uri, self.folder.read_json(PLAN), manifest)
        elif self.folder.list("*.parquet"):
            raise InputError(
                f"--output {uri} holds Parquet files, but no {FINGERPRINT}: give a new or empty "
                "folder"
            )
        self.committed = read_committed(self.folder)
        self._name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        self._parts = 0

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write plan, configuration and fingerprint.

        Raises:
            InputError: If the folder can't be written.
        """
        try:
            self.folder.write_json(PLAN, self._manifest.plan())
            self.folder.write_json(_CONFIG, config)
            self.folder.write_json(FINGERPRINT, self._fingerprint)
        except OSError as error:
            raise InputError(
                f"--output {self.folder.uri} can't be written ({error}): check path and permissions"
            ) from error

    def commit(self, table: pa.Table) -> None:
        """Write finished rows as one part file; once this returns they are done.

        Raises:
            InputError: If it can't be written; none of these rows is done then.
        """
        statuses = count_statuses(table)
        buffer = io.BytesIO()
        stated = {_STATUSES: json.dumps(statuses).encode()}
        pq.write_table(table.replace_schema_metadata(stated), buffer, compression="zstd")
        try:
            self.folder.write(f"part-{self._name}-{self._parts:05d}.parquet", buffer.getvalue())
        except OSError as error:
            raise InputError(
                f"a part file of --output {self.folder.uri} can't be written ({error}); what was "
                "written before is safe: mend this and run the same command again"
            ) from error
        self._parts += 1
        self.committed.add(table.select(list(IDENTITY)), statuses)

    def audit(self) -> Audit:
        """Read the part files again, and compare them with the manifest."""
        self.committed = read_committed(self.folder)
        return audit(self._manifest, self.committed.rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary of a run."""
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


def _check_plan(uri: str, plan: Mapping[str, Any], manifest: Manifest) -> None:
    now = {file["name"]: file for file in manifest.plan()["files"]}
    for before in plan["files"]:
        name = before["name"]
        if name not in now:
            raise InputError(
                f"manifest file {name} is gone from {manifest.uri}, but --output {uri} was begun "
                "with it: put it back, or give another --output"
            )
        for key in ("rows", "size"):
            if now[name][key] != before[key]:
                raise InputError(
                    f"manifest file {name} of {manifest.uri} has changed: its {key} was {before[key]} "
                    f"when --output {uri} was begun and is {now[name][key]}: put it back, or give "
                    "another --output"
                )
