"""Members of uncompressed tar files, such as WebDataset's shards, named by their byte ranges."""

from __future__ import annotations

import posixpath
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import fsspec

from iqa_core.redaction import redact
from iqa_core.storage.encodings import printable
from iqa_core.storage.folder import has_scheme
from iqa_core.tables.file_search import is_hidden
from iqa_core.tables.listing_report import ListingReport, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["list_members"]

_BLOCK = 512
_PADDING = 1 << 16  # zeros after the end mark: the size of a tape's record
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"7z\xbc\xaf")
_LINKS = 40  # that lead to one another


@dataclass(frozen=True)
class _Span:
    first: int
    size: int


def list_members(
    uri: str, name: str, is_image: Callable[[str], bool], report: ListingReport
) -> tuple[list[str], list[str]]:
    """List the images inside of a tar file.

    Links to other members are those members' bytes. Of several members of one name the last counts,
    as in unpacking. The intact members of a damaged or incomplete file are listed.

    Args:
        uri: Path or URI of the tar file.
        name: Its name, which the members' ids begin with.
        is_image: Returns whether a member of this name is wanted.
        report: Receives what is left out.

    Returns:
        ``URI#bytes=FIRST-LAST`` and ``NAME/MEMBER`` of each image, in the order of the file.
    """
    shard = _Shard(name, is_image, report)
    shown = printable(redact(name))
    try:
        with _open(uri) as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(_BLOCK)
            if start.startswith(_COMPRESSED):
                report.add(Reason.ARCHIVE, shown)
                return [], []
            file.seek(0)
            shard.read(file, size)
    except (OSError, tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        report.add(Reason.DAMAGED_SHARD, f"{shown}: {redact(' '.join(str(error).split()))}")
    spans = shard.images()
    uris = [f"{uri}#bytes={span.first}-{span.first + span.size - 1}" for span in spans.values()]
    # A name may not be UTF-8; the image is found by its byte range anyway.
    return uris, [f"{name}/{_valid(member)}" for member in spans]


def _open(uri: str) -> IO[bytes]:
    if not has_scheme(uri):
        return open(uri, "rb")
    file: IO[bytes] = fsspec.open(uri, "rb").open()
    return file


def _valid(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Shard:
    """The members of a tar file; after a failure it keeps what was read so far."""

    def __init__(self, name: str, is_image: Callable[[str], bool], report: ListingReport) -> None:
        self._name = name
        self._is_image = is_image
        self._report = report
        self._spans: dict[str, _Span] = {}
        self._symbolic: dict[str, str] = {}

    def read(self, file: IO[bytes], size: int) -> None:
        """Read the headers of all members.

        Raises:
            tarfile.TarError, OSError, ValueError: If it is damaged.
        """
        with tarfile.open(fileobj=file, mode="r:") as shard:
            for member in shard:
                self._add(member, size)
            self._check_end(file, shard.offset, size)

    def _add(self, member: tarfile.TarInfo, size: int) -> None:
        name = posixpath.normpath(member.name)
        if any(is_hidden(part) for part in name.split("/")):
            if not member.isdir():
                self._leave_out(Reason.HIDDEN, name)
        elif member.issym():
            self._replace(name)
            self._symbolic[name] = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), member.linkname)
            )
        elif member.islnk():
            target = posixpath.normpath(member.linkname)
            span, link = self._spans.get(target), self._symbolic.get(target)
            self._replace(name)
            if span is not None:
                self._spans[name] = span
            elif link is not None:
                self._symbolic[name] = link
            elif self._is_image(name):
                self._leave_out(Reason.MEMBER_LINK, name)
        elif member.isreg():
            self._add_file(name, member, size)

    def _add_file(self, name: str, member: tarfile.TarInfo, size: int) -> None:
        if member.issparse():
            reason = Reason.SPARSE_MEMBER if self._is_image(name) else Reason.SUFFIX
            self._leave_out(reason, name)
        elif member.offset_data + member.size > size:
            reason = Reason.CUT_MEMBER if self._is_image(name) else Reason.SUFFIX
            self._leave_out(reason, name)
        else:
            self._replace(name)
            self._spans[name] = _Span(member.offset_data, member.size)

    def _replace(self, name: str) -> None:
        known = self._spans.pop(name, None) or self._symbolic.pop(name, None)
        if known and self._is_image(name):
            self._leave_out(Reason.REPLACED_MEMBER, name)

    def _leave_out(self, reason: Reason, member: str) -> None:
        self._report.add(reason, f"{self._name}/{member}")

    def _check_end(self, file: IO[bytes], offset: int, size: int) -> None:
        """Find out why no member follows: tarfile takes a damaged header for the end."""
        file.seek(min(offset, size))
        rest = file.read(_PADDING)
        if not rest:
            raise tarfile.ReadError(f"it ends at byte {size:,} without an end mark")
        if any(rest[:_BLOCK]) or len(rest) < _BLOCK:
            raise tarfile.ReadError(f"there is no valid header at byte {offset:,}")
        if any(rest):
            raise tarfile.ReadError(
                f"more follows its end mark at byte {offset:,}; were several tar files joined?"
            )

    def images(self) -> dict[str, _Span]:
        """Return where the images are, by name, in the order of the file; links come last."""
        found = {name: span for name, span in self._spans.items() if self._is_image(name)}
        others = len(self._spans) - len(found)
        if others:
            example = next(name for name in self._spans if name not in found)
            self._report.add(Reason.SUFFIX, f"{self._name}/{example}", others)
        for name in self._symbolic:
            span = self._follow(name)
            if not self._is_image(name):
                self._leave_out(Reason.SUFFIX, name)
            elif span is None:
                self._leave_out(Reason.MEMBER_LINK, name)
            else:
                found[name] = span
        return found

    def _follow(self, name: str) -> _Span | None:
        for _ in range(_LINKS):
            if name in self._spans:
                return self._spans[name]
            if name not in self._symbolic:
                return None
            name = self._symbolic[name]
        return None
