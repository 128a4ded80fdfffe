"""What an output folder must not be: a file, a part of the manifest, or the place of another run's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.storage.folder import Folder
    from iqa_core.tables.manifest import Manifest

__all__ = ["check_fingerprint", "check_place"]


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
    before, now = stored.get(key), wanted.get(key)
    if key == "columns" and before and now and set(before) != set(now):
        only = [
            f"{', '.join(column for column in some if column not in others)} in {whose} only"
            for some, others, whose in ((before, now, "its rows"), (now, before, "this run"))
            if set(some) - set(others)
        ]
        return f"the columns {' and '.join(only)}"
    return f"{key} {before!r} where this run has {now!r}"
