"""Prove that an output holds every row of its manifest exactly once; exit status 1 otherwise.

Reads every part file to its end, and checks that all were written under one fingerprint and that the
manifest's files are those that were scored.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from iqa_core.errors import InputError, Status
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import audit, describe_lost, read_committed
from iqa_core.tables.foreign.features import open_foreign_rows
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import FINGERPRINT, digest, stored_fingerprint
from iqa_core.tables.part_content import Depth
from iqa_core.tables.parts import PARTS, PartFiles
from iqa_core.tables.plan import check_plan, read_damaged, read_plan

from .options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa verify``."""

    scores: str = option(
        help="output folder of `iqa score`, `iqa rescore` or `iqa embed`",
        metavar="O",
        path=True,
    )
    manifest: str = option(
        help="the manifest that was scored; of `iqa rescore` with features of another program, their "
        "--metadata, or --features without it",
        metavar="M",
        path=True,
    )
    json: bool = option(False, help="print the findings as JSON")


def run(config: Config) -> int:
    """Read every part file and compare its rows with the manifest."""
    folder = Folder.given(config.scores, "scores")
    foreign_features = stored_fingerprint(config.scores).get("features")
    if foreign_features is None:
        manifest = open_manifest(config.manifest)
    else:
        manifest = open_foreign_rows(config.manifest, foreign_features.get("column"))
    parts = PartFiles(folder)
    if not parts.names():
        raise InputError(
            f"--scores {config.scores} holds no {PARTS}: give the output of `iqa score`"
        )
    if plan := read_plan(folder):
        check_plan(config.scores, plan, manifest, read_damaged(folder))
    committed = read_committed(parts, depth=Depth.WHOLE)
    result = audit(manifest, committed.rows)
    # Part files of versions that did not write a fingerprint have none, which is no contradiction.
    own = set(sorted(committed.fingerprints)[:1])
    if folder.exists(FINGERPRINT):
        own = {digest(folder.read_object(FINGERPRINT))}
    foreign = committed.fingerprints - own
    passed = result.passed and not foreign
    shards = _shards(folder)
    if config.json:
        findings = {"passed": passed, **asdict(result), "fingerprints": len(foreign) + 1}
        findings |= {"parts": len(committed.parts), "statuses": dict(committed.statuses)}
        findings["lost"] = committed.statuses[Status.UNREADABLE]
        findings["shards"] = shards
        print(json.dumps(findings, indent=2))
        return 0 if passed else 1
    print(result)
    print(", ".join(f"{name} {count:,}" for name, count in committed.statuses.most_common()))
    if lost := describe_lost(committed.statuses):
        print(lost)
    if shards and not result.passed:
        print(f"shards by their last summaries: {_described(shards)}")
    if foreign:
        print(
            f"{len(foreign)} other fingerprints among {len(committed.parts)} part files: not equal"
        )
    return 0 if passed else 1


def _shards(folder: Folder) -> dict[str, bool]:
    """Return whether each shard that has left a summary was complete then, by name."""
    found = {}
    for name in folder.list("_run/summary-*.json"):
        index, _, count = name.rpartition("summary-")[2].removesuffix(".json").partition("-of-")
        summary = folder.read_json(name)
        found[str(Shard(int(index), int(count)))] = bool(summary and summary.get("complete"))
    return found


def _described(shards: dict[str, bool]) -> str:
    return ", ".join(
        f"{name} {'complete' if done else 'incomplete'}" for name, done in shards.items()
    )
