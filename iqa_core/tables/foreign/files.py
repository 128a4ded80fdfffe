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
    above, last = Folder.of_file(uri.rstrip("/"), option)
    is_glob = _WILDCARDS.search(last) is not None and not above.exists(last)
    if not is_glob:
        folder = Folder.given(uri, option)
        if names := [name for name in folder.list(f"*{suffix}") if not name.startswith(("_", "."))]:
            return folder, sorted(names, key=natural_key)
    folder = above
    if is_glob:
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
    else all rows of both are counted one after another. Numbers are compared where there are several files,
    and only those that differ between the files of one side.

    Args:
        features: Name and rows of each file of features.
        metadata: Name and rows of each file of metadata.
        shown: The features' option, for messages.

    Raises:
        InputError: If the numbers of rows or the numbers in the names differ.
    """
    if len(features) == len(metadata):
        numbers, wanted = (_counted([name for name, _ in side]) for side in (features, metadata))
        for place, ((first, rows), (second, others)) in enumerate(
            zip(features, metadata, strict=True)
        ):
            if numbers and wanted and numbers[place] != wanted[place]:
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


def _counted(names: Sequence[str]) -> list[int]:
    """Return the last number in each name that is not the same in all; none if there is no such."""
    numbers = [_NUMBER.findall(PurePosixPath(name).stem) for name in names]
    if len({len(each) for each in numbers}) != 1:
        return []
    columns = [[int(number) for number in column] for column in zip(*numbers, strict=True)]
    return next((column for column in reversed(columns) if len(set(column)) > 1), [])
