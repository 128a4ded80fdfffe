"""Finds the files of foreign features, in the order in which their rows are counted."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_pairs", "find_numbered", "natural_key", "suffixes_in"]

_WILDCARDS = re.compile(r"[*?\[]")
_NUMBER = re.compile(r"(\d+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``img_emb_2`` before ``img_emb_10``."""
    parts = _NUMBER.split(name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def suffixes_in(uri: str, option: str) -> tuple[Folder, set[str]]:
    """Return a folder and the suffixes of the files directly in it; none if it is no folder."""
    folder = Folder.given(uri, option)
    names = folder.list("*")
    return folder, {PurePosixPath(name).suffix.lower() for name in names}


def find_numbered(uri: str, option: str, suffix: str) -> tuple[Folder, list[str]]:
    """Find the files of one kind.

    Args:
        uri: A file with any name, a folder (its own files count, not those of folders in it), or a glob.
        option: The option that named it, for messages.
        suffix: Such as ``.npy``.

    Returns:
        The folder that they are in, and their names in natural order: by the numbers in them.

    Raises:
        InputError: If there is none.
    """
    parent, _, last = uri.rstrip("/").rpartition("/")
    if not _WILDCARDS.search(last):
        folder = Folder.given(uri, option)
        if names := [name for name in folder.list(f"*{suffix}") if not name.startswith(("_", "."))]:
            return folder, sorted(names, key=natural_key)
    folder = Folder.given(parent or ("/" if uri.startswith("/") else "."), option)
    if _WILDCARDS.search(last):
        names = [name for name in folder.list(last) if name.endswith(suffix)]
    else:
        names = [last] if folder.exists(last) else []
    if not names or folder.fs.isdir(folder.path(names[0])):
        raise InputError(
            f"--{option} {redact(uri)} holds no *{suffix} file: check the path, or give the file itself"
        )
    return folder, sorted(names, key=natural_key)


def check_pairs(
    features: Sequence[tuple[str, int]], metadata: Sequence[tuple[str, int]], shown: str
) -> None:
    """Refuse metadata whose rows are not those of the features.

    Equally many files belong together in their order, as ``img_emb_3.npy`` and ``metadata_3.parquet``;
    else all rows of both are counted one after another.

    Args:
        features: Name and rows of each file of features.
        metadata: Name and rows of each file of metadata.
        shown: The features' option, for messages.

    Raises:
        InputError: If the numbers of rows or the numbers in the names differ.
    """
    if len(features) == len(metadata):
        for (first, rows), (second, others) in zip(features, metadata, strict=True):
            numbers, wanted = (_NUMBER.findall(PurePosixPath(n).stem) for n in (first, second))
            if numbers and wanted and int(numbers[-1]) != int(wanted[-1]):
                raise InputError(
                    f"{shown}: {first} would belong to {second} of --metadata, but their numbers differ: "
                    "a file is missing on one side; restore it, or give files of the same numbers"
                )
            if rows != others:
                raise InputError(
                    f"{shown}: {first} has {rows:,} rows, but {second} of --metadata has {others:,}: give "
                    "the metadata that were written with these features"
                )
    total, wanted_total = (sum(rows for _, rows in files) for files in (features, metadata))
    if total != wanted_total:
        raise InputError(
            f"{shown} has {total:,} rows in {len(features):,} files, but --metadata has {wanted_total:,} "
            f"in {len(metadata):,}: give the metadata that were written with these features"
        )
