"""Prove that an output holds every row of its manifest exactly once; exit status 1 otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.files import Folder
from iqa_core.manifest import open_manifest
from iqa_core.output import PARTS, audit, read_committed
from iqa_core.schema import InputError
from jobs.options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa verify``."""

    scores: str = option(help="output folder of `iqa score`", metavar="O")
    manifest: str = option(help="the manifest that was scored", metavar="M")


def run(config: Config) -> int:
    """Read every part file's identities and compare them with the manifest."""
    manifest = open_manifest(config.manifest)
    folder = Folder.of(config.scores)
    if not folder.list(PARTS):
        raise InputError(
            f"--scores {config.scores} holds no {PARTS}: give the output of `iqa score`"
        )
    committed = read_committed(folder)
    result = audit(manifest, committed.rows)
    print(result)
    print(", ".join(f"{name} {count:,}" for name, count in committed.statuses.most_common()))
    return 0 if result.passed else 1
