"""What an output must not be: a file, a part of the manifest, or the place of another run's rows."""

from __future__ import annotations

import fnmatch
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsspec.utils import glob_translate

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder
from iqa_core.tables.parts import PARTS
from iqa_core.tables.plan import manifest_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from iqa_core.tables.manifest import Manifest

__all__ = ["check_fingerprint", "check_no_part", "check_not_in_manifest", "check_place"]

_RUN = "_run"  # the folder of what a run records beside its rows
_SUFFIX = ".parquet"


def check_place(folder: Folder, manifest: Manifest) -> None:
    """Refuse an output that is a file, or lies within the manifest's folder.

    Raises:
        InputError: If it does.
    """
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


def check_not_in_manifest(uri: str, plan: Mapping[str, Any]) -> None:
    """Refuse an output of Parquet files that the next run over a manifest would read as more of its rows.

    Args:
        uri: The output: a file, or a folder of files.
        plan: What a run records of its manifest; an empty one refuses nothing.

    Raises:
        InputError: If the manifest is a folder that holds the output, or a glob that matches it.
    """
    manifest, place = plan.get("manifest"), manifest_folder(plan)
    names = [str(file["name"]) for file in plan.get("files", [])]
    if not isinstance(manifest, str) or place is None:
        return
    if names and not any(name.endswith(_SUFFIX) for name in names):  # arrays of features
        return
    try:
        output, read, folder = (Folder.of(each) for each in (uri, manifest, place))
    except (ImportError, ValueError):  # what can't be opened from here
        return
    if type(output.fs) is not type(read.fs):
        return
    path = _real(output)
    if not path.endswith(_SUFFIX):  # a folder of files
        path = f"{path}/0{_SUFFIX}"
    root, pattern = _real(folder), _real(read)
    if not path.startswith(f"{root}/"):
        return
    inner = path[len(root) + 1 :].split("/")
    if any(part.startswith(("_", ".")) for part in inner):  # no reader of manifests takes these
        return
    if root == pattern:
        limit = f"outside of the manifest's folder {redact(manifest)}"
    elif any(sign in pattern for sign in "*?[") and _matches(pattern, path):
        limit = f"outside of what the manifest {redact(manifest)} matches"
    else:
        return
    fix = "the next run would read it as more rows of the manifest; give another place"
    raise InputError(argument="output", value=uri, limit=limit, fix=fix)


def check_no_part(uri: str, outputs: Iterable[str | None] = ()) -> None:
    """Refuse a file or folder that a reader of scores would take for one of their part files.

    Args:
        uri: What is to be written, given as ``output``.
        outputs: Outputs that the command reads; None are options that were not given. Other folders are
            outputs if a run has left its records in them.

    Raises:
        InputError: If it is called as part files are, and lies in an output's folder.
    """
    folder, name = Folder.of_file(uri.rstrip("/"), "output")
    if not fnmatch.fnmatchcase(name, PARTS):
        return
    is_of_a_run = any(_is_at(output, folder) for output in outputs if output is not None)
    with suppress(OSError):  # the command itself will say that the place can't be reached
        is_of_a_run = is_of_a_run or folder.exists(_RUN)
    if is_of_a_run:
        raise InputError(
            argument="output",
            value=uri,
            limit=f"a name other than {PARTS} within an output of `iqa score`",
            fix="it would be read as more rows of that output; give another name or place",
        )


def _is_at(uri: str, folder: Folder) -> bool:
    """Return whether a URI names a folder."""
    try:
        other = Folder.of(uri)
    except (ImportError, ValueError):  # what can't be opened from here
        return False
    return type(other.fs) is type(folder.fs) and _real(other) == _real(folder)


def _real(folder: Folder) -> str:
    """Return a path on its filesystem, of local ones without symbolic links."""
    return os.path.realpath(folder.root) if folder.is_local else folder.root


def _matches(pattern: str, path: str) -> bool:
    """Return whether a glob matches a file, or a folder that holds it."""
    matches = re.compile(glob_translate(pattern)).match
    parts = path.split("/")
    return any(matches("/".join(parts[:count])) for count in range(1, len(parts) + 1))


def check_fingerprint(uri: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse an output that holds rows of another fingerprint.

    Args:
        uri: The output.
        stored: The fingerprint of its rows.
        wanted: That of the run.

    Raises:
        InputError: If they differ.
    """
    for key in [*wanted, *stored]:
        if stored.get(key) != wanted.get(key):
            difference = _difference(key, stored, wanted)
            raise InputError(
                f"--output {uri} holds another run's rows, with {difference}, and the two don't mix: give "
                "another --output, or the same options and versions"
            )


def _difference(key: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return what differs; of the columns, which there are many of, those that only one of the two has."""
    before, now = stored.get(key), wanted.get(key)
    if key == "columns" and before and now:
        gone = [column for column in before if column not in now]
        new = [column for column in now if column not in before]
        only = [f"{', '.join(gone)} in its rows only"] if gone else []
        only += [f"{', '.join(new)} in this run only"] if new else []
        if only:  # else their order
            return f"the columns {' and '.join(only)}"
    return f"{key} {before!r} where this run has {now!r}"
