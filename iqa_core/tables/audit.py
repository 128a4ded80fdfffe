"""The rows of an output, and the proof that it holds every row of its manifest exactly once."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyroaring import BitMap

from iqa_core.errors import InputError, Status
from iqa_core.storage.folder import CONNECTIONS
from iqa_core.tables.part_content import Depth
from iqa_core.tables.rows import RowSet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.part_content import PartContent
    from iqa_core.tables.parts import PartFiles

__all__ = [
    "Audit",
    "Committed",
    "audit",
    "describe_lost",
    "left_to_do",
    "read_committed",
]

_LOCAL_READERS = 8
#: Times that part files are listed, while others change them.
_ATTEMPTS = 5
_EXAMPLES = 5


@dataclass(eq=False)
class Committed:
    """The rows that an output holds.

    One thread may add part files while another reads: each number that it reads is that of some
    moment, and it may keep ``statuses``, which is never changed, only replaced.

    Attributes:
        rows: The rows, as bitmaps.
        statuses: Rows by status.
        parts: Names of the part files, each with a version tag that changes when it is replaced.
        fingerprints: Digests of the fingerprints in the part files' metadata.
    """

    rows: RowSet = field(default_factory=RowSet)
    statuses: Counter[str] = field(default_factory=Counter)
    parts: dict[str, str | None] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)

    def add(self, part: PartContent, stamp: str | None = None) -> None:
        """Add a part file."""
        self.rows.update(part.rows)
        statuses = Counter(self.statuses)
        statuses.update(part.statuses)
        self.statuses = statuses  # a new object: another thread may be reading the old one
        self.parts[part.name] = stamp
        if part.fingerprint is not None:
            self.fingerprints.add(part.fingerprint)


def read_committed(
    parts: PartFiles,
    known: Committed | None = None,
    *,
    depth: Depth = Depth.FOOTER,
    deeper: Collection[str] = (),
    within: Mapping[str, range] | None = None,
) -> Committed:
    """Read the identities and statuses of all part files, in parallel.

    Args:
        parts: The part files.
        known: An earlier result; then only new part files are read, unless some were replaced.
        depth: How much of each file is read.
        deeper: Part files of which the identity columns are read at least.
        within: Ranges of row numbers, by manifest file; only rows in these count.

    Raises:
        InputError: If a part file can't be read.
    """
    committed = known or Committed()

    def read(name: str) -> PartContent:
        shallow = depth is Depth.FOOTER and name in deeper
        return parts.content(name, Depth.IDENTITIES if shallow else depth, within)

    readers = _LOCAL_READERS if parts.folder.is_local else CONNECTIONS
    with ThreadPoolExecutor(readers) as pool:
        for attempt in range(_ATTEMPTS):
            stamps = parts.stamps()
            if any(stamps.get(name) != stamp for name, stamp in committed.parts.items()):
                committed = Committed()  # another driver has removed rows from these
            names = [name for name in stamps if name not in committed.parts]
            try:
                # In slices, to limit the number of tables in memory.
                for start in range(0, len(names), 4 * readers):
                    for part in pool.map(read, names[start : start + 4 * readers]):
                        committed.add(part, stamps[part.name])
                break
            except InputError:
                now = parts.stamps()
                is_changed = any(now.get(name) != stamps[name] for name in names)
                if not is_changed or attempt == _ATTEMPTS - 1:
                    raise
                # The driver of another shard has taken rows to retry out of it.
    committed.rows.compact()
    return committed


def left_to_do(manifest: Manifest, committed: Committed, retry: Sequence[str] = ()) -> bool:
    """Return whether rows are missing, duplicated, or to be retried.

    Args:
        manifest: What is scored.
        committed: The rows that are finished.
        retry: Statuses of rows to do again.
    """
    again = sum(committed.statuses[status] for status in retry)
    missing = len(committed.rows) < manifest.rows
    return bool(missing or again or committed.rows.duplicates)


@dataclass(frozen=True)
class Audit:
    """Whether an output holds every row of its manifest exactly once.

    Attributes:
        rows: Rows of the manifest.
        found: Distinct rows of the output that the manifest has.
        twice: Number of duplicates.
        missing: Rows of the manifest that the output lacks.
        unknown: Rows of the output that the manifest does not have.
        examples: Some missing rows, as ``file:row``.
        shard: The shard that the rows are of; empty for a whole manifest.
    """

    rows: int
    found: int
    twice: int
    missing: int
    unknown: int
    examples: tuple[str, ...]
    shard: str = ""

    @property
    def passed(self) -> bool:
        """Whether rows out are exactly rows in."""
        return self.twice == self.missing == self.unknown == 0

    def __str__(self) -> str:
        """Return it as one line."""
        counts = f"{self.rows:,} rows in, {self.found:,} rows out"
        if self.shard:
            counts = f"{self.shard}: {counts}"
        if self.passed:
            return f"{counts}: none missing, none twice"
        missing = f" (such as {', '.join(self.examples)})" if self.examples else ""
        return (
            f"{counts}: {self.missing:,} missing{missing}, "
            f"{self.twice:,} twice, {self.unknown:,} that the manifest does not have"
        )


def audit(manifest: Manifest, rows: RowSet) -> Audit:
    """Compare an output's rows with its manifest, or those of a shard with the shard's."""
    found = 0
    examples: list[str] = []
    for file in manifest.files:
        wanted = file.wanted
        there = rows.rows(file.name)
        within = there.range_cardinality(wanted.start, wanted.stop)
        found += within
        if within < len(wanted) and len(examples) < _EXAMPLES:
            examples += [f"{file.name}:{row}" for row in _first_gaps(there, wanted)]
    return Audit(
        rows=manifest.rows,
        found=found,
        twice=rows.duplicates,
        missing=manifest.rows - found,
        unknown=len(rows) - found,
        examples=tuple(examples[:_EXAMPLES]),
        shard=str(manifest.shard or ""),
    )


def _first_gaps(there: BitMap, wanted: range) -> Iterator[int]:
    return itertools.islice(there.flip(wanted.start, wanted.stop) & BitMap(wanted), _EXAMPLES)


def describe_lost(statuses: Mapping[str, int]) -> str:
    """Return a line on rows lost to damage of the manifest; empty if there are none."""
    lost = statuses.get(Status.UNREADABLE, 0)
    if not lost:
        return ""
    return (
        f"{lost:,} rows are lost: their data in the manifest are damaged (status {Status.UNREADABLE}); "
        f"once its files are restored, --retry-errors {Status.UNREADABLE} scores them"
    )
