"""What an output records of its manifest: the plan, and which files were found damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.errors import InputError
from iqa_core.redaction import error_line
from iqa_core.tables.manifest import Manifest, ManifestFile
from iqa_core.tables.manifest_files import FOOTER, digest_like, footer_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iqa_core.storage.folder import Folder
    from iqa_core.tables.manifest_shard import Shard

__all__ = [
    "DAMAGED",
    "PLAN",
    "check_plan",
    "check_planned_file",
    "damaged_name",
    "manifest_folder",
    "planned_manifest",
    "read_damaged",
    "read_plan",
    "with_damaged",
]

PLAN = "_run/plan.json"
DAMAGED = "_run/damaged.json"
_ALL_DAMAGED = "_run/damaged*.json"


def damaged_name(shard: Shard | None) -> str:
    """Return the file in which a run records damaged manifest files: each shard has its own."""
    return DAMAGED if shard is None else f"_run/damaged-{shard.label}.json"


def manifest_folder(plan: Mapping[str, Any]) -> str | None:
    """Return the folder that a run's relative URIs refer to, as its plan tells; None if it does not.

    >>> manifest_folder({"manifest": "/data/m.parquet", "folder": "/data"})
    '/data'

    Plans of versions up to 0.2 have no ``folder``:

    >>> manifest_folder({"manifest": "/data/m.parquet", "files": [{"name": "m.parquet"}]})
    '/data'
    >>> manifest_folder({"manifest": "s3://box/lists/*.parquet", "files": [{"name": "a.parquet"}]})
    's3://box/lists'
    """
    if plan.get("folder"):
        return str(plan["folder"])
    uri = plan.get("manifest")
    if not isinstance(uri, str) or not uri:
        return None
    if uri.lower().startswith("file://"):
        uri = uri[len("file://") :]
    names = [str(file["name"]) for file in plan.get("files", [])]
    if len(names) == 1 and uri.endswith(f"/{names[0]}"):
        return uri[: -len(names[0]) - 1]
    signs = [uri.index(sign) for sign in "*?[" if sign in uri]
    if signs:
        return uri[: min(signs)].rpartition("/")[0]
    return uri.rstrip("/")


def read_plan(folder: Folder) -> dict[str, Any]:
    """Return what an output records of its manifest; empty if it records nothing.

    Raises:
        InputError: If the record is damaged, or can't be read.
    """
    try:
        plan = folder.read_object(PLAN)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    files = plan.get("files")
    if not isinstance(files, list) or not isinstance(plan.get("rows", 0), int):
        raise folder.damaged(PLAN, "it has no list of the manifest's files")
    if not all(map(_is_planned_file, files)):
        raise folder.damaged(PLAN, "a file of the manifest lacks its name or its rows")
    return plan


def _is_planned_file(file: object) -> bool:
    if not isinstance(file, dict) or not isinstance(file.get("name"), str):
        return False
    groups = file.get("row_groups", [])
    numbers = [file.get(key) for key in ("rows", "size") if file.get(key) is not None]
    return isinstance(groups, list) and all(isinstance(n, int) for n in (*numbers, *groups))


def planned_manifest(folder: Folder, schema: pa.Schema) -> Manifest:
    """Return the manifest of an output as its plan records it; the manifest itself is not read.

    Args:
        folder: The output, which has a plan.
        schema: The columns of the output, for the types of kept ones.

    Raises:
        InputError: If the plan is damaged or can't be read.
    """
    plan = read_plan(folder)
    try:
        files = tuple(
            ManifestFile(
                file["name"],
                int(file["size"]),
                tuple(file["row_groups"]),
                file.get("digest"),
            )
            for file in plan["files"]
        )
        return Manifest(str(plan["manifest"]), folder, files, schema, place=manifest_folder(plan))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error_line(error)
        raise folder.damaged(PLAN, reason) from error


def read_damaged(folder: Folder) -> dict[str, dict[str, str | None]]:
    """Return the manifest files that were found damaged: their digests, and those of their footers."""
    damaged: dict[str, dict[str, str | None]] = {}
    for name in folder.list(_ALL_DAMAGED):
        damaged |= folder.read_object(name)
    return damaged


def with_damaged(
    damaged: Mapping[str, Mapping[str, str | None]], manifest: Manifest, names: Sequence[str]
) -> dict[str, Mapping[str, str | None]]:
    """Return the record of damaged manifest files with more files added.

    Args:
        damaged: Of :func:`read_damaged`.
        manifest: The manifest.
        names: Its files whose data were found damaged.
    """
    files = {file.name: file for file in manifest.files}
    after = dict(damaged)
    for name in names:
        if damaged.get(name, {}).get("digest") != files[name].digest:
            after[name] = {
                "digest": files[name].digest,
                "footer": _footer_digest(manifest, name),
            }
    return after


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
    """Return whether a file was restored: it was damaged, and its size and footer are still the same."""
    if damaged.get("digest") != before["digest"] or not damaged.get("footer"):
        return False
    return _footer_digest(manifest, before["name"]) == damaged["footer"]


def _is_same(manifest: Manifest, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a file is the same although its digest is of another kind.

    Of small manifests, digests are of whole files, and of footers once they have grown.
    """
    if _kind(before["digest"]) == _kind(now["digest"]):
        return False
    folder = manifest.folder
    try:
        digest = digest_like(folder, folder.path(now["name"]), before["digest"])
    except (OSError, pa.ArrowException):
        return False
    return digest == str(before["digest"])


def check_planned_file(
    folder: Folder, planned: Mapping[str, Any], metadata: pq.FileMetaData, *, moved: bool
) -> None:
    """Check that a manifest file is the one that was scored.

    Args:
        folder: Where the manifest is now.
        planned: What the plan records of the file.
        metadata: The footer that it has now.
        moved: Whether it may be on another store, whose checksums are of its own.

    Raises:
        InputError: If its number of rows, its size or its content is another one.
        OSError: If it can't be read.
    """
    name, before = str(planned["name"]), planned.get("digest")
    rows = int(planned.get("rows") or sum(planned.get("row_groups", ())))
    same = rows in (0, metadata.num_rows)  # 0: not recorded
    if same and "size" in planned:
        same = planned["size"] == folder.fs.info(folder.path(name))["size"]
    if same and before and not (moved and _is_of_a_store(before)):
        now = digest_like(folder, folder.path(name), before)
        same = now == before or _kind(now) != _kind(before)
    if not same:
        how = f"it had {rows:,} rows, and has {metadata.num_rows:,}"
        if rows == metadata.num_rows:
            how = "it has as many rows, but other content"
        raise InputError(
            f"manifest file {name} has changed since it was scored ({how}): restore it, or score again"
        )


def _is_of_a_store(digest: str) -> bool:
    return bool(_kind(digest)) and not digest.startswith(FOOTER)


def _kind(digest: str) -> str:
    """Return how a digest was made, as its first word; empty if of the whole file."""
    return digest.partition(" ")[0] if " " in digest else ""


def check_plan(
    uri: str,
    plan: Mapping[str, Any],
    manifest: Manifest,
    damaged: Mapping[str, Mapping[str, str | None]] | None = None,
) -> None:
    """Compare a manifest with the one that an output's plan records.

    Args:
        uri: The output, for messages.
        plan: The plan.
        manifest: The manifest as it is now.
        damaged: Of :func:`read_damaged`. Such a file may be restored: then its content differs, but
            its size and its footer are the same.

    Raises:
        InputError: If a file is gone or has changed. New files are allowed.
    """
    now = {file["name"]: file for file in manifest.plan()["files"]}
    for before in plan["files"]:
        name = before["name"]
        if name not in now:
            raise InputError(
                f"manifest file {name} is gone from {manifest.uri}, but --output {uri} has rows of it: "
                "restore it, or give another --output"
            )
        for key in ("rows", "size", "digest"):
            # Older outputs have no digest.
            if before.get(key) is not None and now[name][key] not in (before[key], None):
                noted = (damaged or {}).get(name, {})
                if key == "digest" and (
                    _is_same(manifest, before, now[name])
                    or (noted and _is_restored(manifest, before, noted))
                ):
                    continue
                raise InputError(
                    f"manifest file {name} of {manifest.uri}: {key} changed from {before[key]} to "
                    f"{now[name][key]} since --output {uri} was started: restore the file, or give "
                    "another --output. More images belong in a further file: a folder of both, given as "
                    "--manifest, is scored from where this one was"
                )
