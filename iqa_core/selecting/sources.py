"""Finished outputs to select from: rows as Arrow datasets, checked to be whole and of one manifest."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.columns import IDENTITY, IMAGE, SCORE, STATUS, Kind, names_of
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.selecting.engine import is_readable
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.audit import read_committed
from iqa_core.tables.output import FINGERPRINT, digest
from iqa_core.tables.parts import PARTS, PartFiles
from iqa_core.tables.plan import read_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow.dataset as ds

    from iqa_core.tables.rows import RowSet

__all__ = ["ScoreSource", "open_scores"]

_FEATURES = set(names_of(Kind.FEATURE, Kind.VIEW))
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class ScoreSource:
    """One output.

    Attributes:
        name: What its columns are known by in expressions; empty for the first one.
        uri: Its folder.
        dataset: Its rows, without features and without columns that can't be selected by.
        left_out: Names of the latter.
        rows: Their number.
        statuses: Rows by status.
        plan: What the run recorded of its manifest; empty if it left nothing.
        fingerprint: Digest of the fingerprint that its rows were written under; None if it has none.
        missing: Rows of the manifest that it lacks.
        identities: Its rows, as bitmaps.
    """

    name: str
    uri: str
    dataset: ds.Dataset
    left_out: tuple[str, ...]
    rows: int
    statuses: dict[str, int]
    plan: dict[str, Any]
    fingerprint: str | None
    missing: int
    identities: RowSet = field(repr=False)

    @property
    def shown(self) -> str:
        """Its folder, for messages."""
        return redact(self.uri)

    def shared_rows(self, other: ScoreSource) -> int:
        """Return the number of rows that are in another output, too."""
        return sum(
            rows.intersection_cardinality(other.identities.rows(file))
            for file, rows in self.identities.bitmaps()
        )

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return self.dataset.schema

    def facts(self) -> dict[str, Any]:
        """Return what a manifest of a selection records of it, as JSON."""
        return {
            "name": self.name,
            "scores": redact(self.uri),
            "manifest": self.plan.get("manifest"),
            "fingerprint": self.fingerprint,
            "rows": self.rows,
        }


def open_scores(scores: Sequence[str], *, allow_unfinished: bool = False) -> list[ScoreSource]:
    """Open one or several outputs.

    Args:
        scores: Their folders. The columns of further ones are named after the folder, or as
            ``NAME=FOLDER`` says.
        allow_unfinished: Also open outputs that lack rows of their manifest.

    Raises:
        InputError: If one is no output with scores, is unfinished, or is of another manifest than
            the first.
    """
    sources = []
    for place, given in enumerate(scores):
        # The first has no name; and a folder may be called `run=3`.
        is_named = place > 0 and not has_scheme(given.partition("=")[0])
        found = _NAMED.fullmatch(given) if is_named and not os.path.isdir(given) else None
        uri = found[2] if found else given
        name = (found[1] if found else uri.rstrip("/").rpartition("/")[2]) if place else ""
        sources.append(_open(name, uri, allow_unfinished))
    first, *others = sources
    taken = {IMAGE, *(column.lower() for column in first.schema.names)}
    for other in others:
        if other.name.lower() in taken or other.name.startswith("_iqa_"):
            raise InputError(
                f"--scores {other.uri} would be known as {other.name}, which is a column or output "
                f"already: give it another name, such as second={other.uri}"
            )
        taken.add(other.name.lower())
        _check_same_manifest(first, other)
    return sources


def _open(name: str, uri: str, allow_unfinished: bool) -> ScoreSource:
    folder = Folder.given(uri, "scores")
    parts = PartFiles(folder, f"--scores {uri}", "restore it, or score again")
    try:
        names = parts.names()
    except OSError as error:
        raise InputError(f"--scores {uri} can't be read: {redact(str(error))}") from error
    if not names:
        raise InputError(f"--scores {uri} holds no {PARTS}: give the output of `iqa score`")
    committed = read_committed(parts)
    if committed.rows.duplicates:
        raise InputError(
            f"--scores {uri} holds {committed.rows.duplicates:,} rows twice: run the command that wrote it "
            "once more, which removes them"
        )
    if len(committed.fingerprints) > 1:
        raise InputError(
            f"--scores {uri} holds rows of {len(committed.fingerprints)} fingerprints, which can't be "
            "compared: score again"
        )
    plan = read_plan(folder)
    rows = len(committed.rows)
    missing = max(0, int(plan.get("rows") or _planned_rows(plan)) - rows)
    if missing and not allow_unfinished:
        raise InputError(
            f"--scores {uri} lacks {missing:,} rows of its manifest: finish it by the command that wrote "
            "it, or add --allow-unfinished to select from what is there"
        )
    dataset = parts.dataset(names)
    schema = dataset.schema.remove_metadata()
    for column in (*IDENTITY, STATUS, SCORE):
        if column not in schema.names:
            raise InputError(
                f"--scores {uri} has no column {column!r}: give the output of `iqa score` or `iqa rescore`"
            )
    kept, left_out, seen = [], [], set()
    for column_field in schema:
        if column_field.name in _FEATURES:
            continue
        is_other = column_field.name.lower() not in seen  # SQL takes `WIDTH` for `width`
        if is_readable(column_field.type) and column_field.name != IMAGE and is_other:
            kept.append(column_field)
            seen.add(column_field.name.lower())
        else:
            left_out.append(column_field.name)
    fingerprint = next(iter(committed.fingerprints), None)
    if fingerprint is None and folder.exists(FINGERPRINT):
        fingerprint = digest(folder.read_object(FINGERPRINT))
    return ScoreSource(
        name=name,
        uri=uri,
        dataset=dataset.replace_schema(pa.schema(kept)),
        left_out=tuple(left_out),
        rows=rows,
        statuses=dict(committed.statuses),
        plan=plan,
        fingerprint=fingerprint,
        missing=missing,
        identities=committed.rows,
    )


def _files(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(file["name"]): file for file in plan.get("files", [])}


def _planned_rows(plan: dict[str, Any]) -> int:
    return sum(
        int(file.get("rows") or sum(file.get("row_groups", ()))) for file in _files(plan).values()
    )


def _check_same_manifest(first: ScoreSource, other: ScoreSource) -> None:
    """Check that the files which two outputs have in common are the same ones."""
    here, there = _files(first.plan), _files(other.plan)
    common = here.keys() & there.keys()
    different = [
        name
        for name in sorted(common)
        for key in ("rows", "size")
        if None not in (here[name].get(key), there[name].get(key))
        and here[name][key] != there[name][key]
    ]
    if different or (here and there and not common):
        why = (
            f"their manifest files {different[0]} differ"
            if different
            else "no manifest file is of both"
        )
        raise InputError(
            f"--scores {first.uri} and {other.uri} are of different manifests ({why}), so their rows can't "
            "be joined: score one manifest with both"
        )
