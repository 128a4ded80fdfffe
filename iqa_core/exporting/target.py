"""Places for exports that appear whole or not at all.

Locally, everything is written under a hidden name in the same folder and renamed at the end. On an object
store, a file appears when it is complete; of a folder, ``_export.json`` is written last: without it, it is
unfinished.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from iqa_core.errors import InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MARKER", "new_file", "new_folder"]

#: The last file of an exported folder: what it was made from.
MARKER = "_export.json"


@contextmanager
def new_file(uri: str) -> Iterator[IO[bytes]]:
    """Open a new file for writing; it appears once the block has ended without an error.

    Raises:
        InputError: If it exists, or can't be written.
    """
    folder = Folder.given(uri, "output")
    with _os_errors_as_input_errors(uri):
        _refuse_existing(folder, uri)
        if folder.is_local:
            with _renamed(Path(folder.root)) as temporary, temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            return
        file = folder.fs.open(folder.root, "wb", autocommit=False)
        try:
            yield cast("IO[bytes]", file)
            file.close()
        except BaseException:
            file.discard()
            raise
        file.commit()


@contextmanager
def new_folder(uri: str, provenance: Mapping[str, Any]) -> Iterator[Folder]:
    """Make a new folder; locally it appears once the block has ended without an error.

    Args:
        uri: The folder.
        provenance: What its ``_export.json`` says, as it is at the end.

    Yields:
        The folder to write to.

    Raises:
        InputError: If it exists, or can't be written.
    """
    folder = Folder.given(uri, "output")
    with _os_errors_as_input_errors(uri):
        _refuse_existing(folder, uri)
        if not folder.is_local:
            yield folder
            folder.write(MARKER, _as_json(provenance))
            return
        with _renamed(Path(folder.root)) as temporary:
            temporary.mkdir()
            yield Folder.of(str(temporary))
            (temporary / MARKER).write_bytes(_as_json(provenance))
            for path in temporary.rglob("*"):
                _sync(path)
            _sync(temporary)


def _as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def _refuse_existing(folder: Folder, uri: str) -> None:
    if not folder.retried(lambda: folder.fs.exists(folder.root)):
        return
    unfinished = not folder.is_local and folder.fs.isdir(folder.root) and not folder.exists(MARKER)
    state = f"holds an unfinished export (no {MARKER})" if unfinished else "exists"
    raise InputError(f"--output {redact(uri)} {state}: remove it, or give another path")


@contextmanager
def _renamed(final: Path) -> Iterator[Path]:
    """Yield a hidden path beside the final one, which takes the final name at the end."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield temporary
        _take_name(temporary, final)
        _sync(final.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _take_name(temporary: Path, final: Path) -> None:
    """Give a finished file or folder its name, unless something has taken it meanwhile."""
    try:
        if temporary.is_file() and _linked(temporary, final):
            return
        if final.exists():
            raise FileExistsError
        temporary.rename(final)
    except FileExistsError:
        raise InputError(
            f"--output {final} was made by something else meanwhile: remove it, or give another path"
        ) from None


def _linked(temporary: Path, final: Path) -> bool:
    """Name a file as a hard link, which fails where the name exists; False on disks without such links."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Make a file or a folder's names durable: they survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _os_errors_as_input_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--output {redact(uri)} can't be written ({error_line(error)}): nothing was exported; fix "
            "this and run it again"
        ) from error
