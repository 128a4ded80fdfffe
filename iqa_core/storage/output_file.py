"""What a file to write must be, checked before any work: of the right suffix, and none of the inputs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.folder import Folder, has_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_output_file"]

#: Suffixes that are spelled letter by letter: "an .svg file".
_SPELLED_WITH_AN = (".html", ".svg")


def check_output_file(
    option: str, uri: str, suffix: str, inputs: Iterable[str | None] = (), *, otherwise: str = ""
) -> None:
    """Refuse to write a file under a name of another kind, or in place of an input.

    Another existing file of that suffix is no error: the same command again replaces its output.

    Args:
        option: The keyword of the option that names the file, such as ``output``.
        uri: The file's path or URI.
        suffix: What its name must end in, such as ``.parquet``.
        inputs: Paths, URIs or globs that the command reads; None are options that were not given.
        otherwise: Another remedy for a wrong suffix, in which arguments stand in braces.

    Raises:
        InputError: If the name has another suffix, or the file is one of the inputs.
    """
    if not uri.endswith(suffix):
        article = "an" if suffix in _SPELLED_WITH_AN else "a"
        raise InputError(
            argument=option,
            value=uri,
            limit=f"{article} {suffix} file",
            fix=f"let its name end in {suffix}{otherwise}",
        )
    folder, name = Folder.of_file(uri, option)
    for given in inputs:
        if given is not None and _is_at(given, folder, folder.path(name)):
            raise InputError(
                argument=option,
                value=uri,
                limit=f"another file than the input {redact(given)}",
                fix="give another name, as the input would be lost",
            )


def _is_at(uri: str, folder: Folder, path: str) -> bool:
    """Return whether a URI names the file at a path of a folder's filesystem, also by a link."""
    try:
        if folder.is_local and not has_scheme(uri):
            return os.path.samefile(uri, path)
        source = Folder.of(uri)
        if folder.is_local and source.is_local:
            return os.path.samefile(source.root, path)
    except (OSError, ImportError, ValueError):  # nothing there, or what the command itself reports
        return False
    return type(source.fs) is type(folder.fs) and source.root == path
