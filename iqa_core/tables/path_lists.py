"""Lists of images, as delimited text or one path per line, with paths as other systems write them.

A path that exists as written is never changed. Any other path is corrected if the corrected file
exists: without blanks or quotation marks around it, with ``/`` for
backslashes, percent-decoded, or with its accents composed or decomposed.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.columns import IMAGE, IMAGE_ID, URI
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.storage.encodings import find_encoding, printable
from iqa_core.storage.folder import has_scheme
from iqa_core.tables.delimited import read_delimited, read_whole
from iqa_core.tables.listing_report import ListingReport, Reason
from iqa_core.tables.text_types import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["LIST_SUFFIXES", "TEXT_SUFFIXES", "read_lines", "read_list", "suffix_of"]

#: Delimited text with a line of column names.
LIST_SUFFIXES = frozenset({".csv", ".tsv", ".psv"})
#: One path or URI per line.
TEXT_SUFFIXES = frozenset({".txt", ".lst", ".list"})
_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zip"})

_URI_COLUMNS = (
    *(URI, "path", "file", "filename", "image", "image_path", "url"),
    *("file_name", "filepath", "file_path", "image_url", "image_name"),
)
_SAMPLE = 100  # rows whose files are checked
_BLANKS = " \t\r\n\v\f\xa0\u200b\u200e\u200f\u2028\ufeff"  # of tables, web pages, other scripts
#: What a path may have that is not as its file's name has it. Other variants are not tried.
_SUSPICIOUS = re.compile(
    r"""^[\s'"]|[\s'"]$|[\\%]|^file:|[^\x00-\x7f]|^[A-Za-z]:/""", re.IGNORECASE
)
_DRIVE = re.compile(r"^(file:/{0,3})?([A-Za-z]:[\\/]|\\\\[^\\])", re.IGNORECASE)
_FILE_URI = re.compile(r"^file:(?://(?:localhost)?)?(?=/)", re.IGNORECASE)


def suffix_of(source: str) -> str:
    """Return the suffix of a path or URI in lower case, without that of a compression."""
    if source.lower().startswith(("http://", "https://")):
        source = re.split(r"[?#]", source, maxsplit=1)[0]
    stem, suffix = os.path.splitext(source.lower())
    inner = os.path.splitext(stem)[1] if suffix in _COMPRESSED else ""
    return inner if inner in _LISTS else suffix


_LISTS = LIST_SUFFIXES | TEXT_SUFFIXES


def read_list(source: str, uri_column: str | None, report: ListingReport) -> pa.Table:
    """Read a list in delimited text.

    Args:
        source: Path or URI.
        uri_column: The column of paths or URIs; by default the first of the usual names.
        report: How it was read, what was corrected and what is doubtful is added to it.

    Returns:
        All columns as text, the column of URIs first, as ``uri``; relative paths are those below the
        list's own folder.

    Raises:
        InputError: If it can't be read, or has no such column.
    """
    found = read_delimited(source)
    shown = printable(redact(source))
    report.notes += [f"{shown}: {note}" for note in found.notes]
    table = found.table
    column = _uri_column(table.column_names, uri_column, shown)
    uris = _resolve(table.column(column).to_pylist(), source, report)
    rest = table.drop_columns([column])
    if IMAGE_ID in rest.column_names:
        place = rest.column_names.index(IMAGE_ID)
        rest = rest.set_column(place, IMAGE_ID, pc.utf8_trim_whitespace(rest.column(IMAGE_ID)))
    taken = {name: f"list_{name}" for name in (URI, IMAGE) if name in rest.column_names}
    report.notes += [
        f"{shown}: its column {old} is called {new}, as {old} means another thing in a manifest"
        for old, new in taken.items()
    ]
    rest = rest.rename_columns([taken.get(name, name) for name in rest.column_names])
    return rest.add_column(0, URI, pa.array(uris, pa.string()))


def _uri_column(names: Sequence[str], wanted: str | None, shown: str) -> str:
    lower = {name.lower().replace(" ", "_"): name for name in reversed(names)}
    candidates = [wanted] if wanted else _URI_COLUMNS
    for candidate in candidates:
        if candidate in names or (not wanted and candidate in lower):
            return candidate if candidate in names else lower[candidate]
    raise InputError(
        f"{shown} has the columns {printable(', '.join(names))}, but none of {', '.join(candidates)}: "
        "name the column of paths with --uri-column, in the first line of the file if it is not there"
    )


def read_lines(
    source: str, is_image: Callable[[str], bool], report: ListingReport
) -> pa.Table | None:
    """Read a list of one path or URI per line.

    Args:
        source: Path or URI.
        is_image: Returns whether a path's suffix is that of an image.
        report: As in :func:`read_list`. A text in which fewer than half of the lines name an
            image or are a URI is not a list; it is left out and counted there.

    Returns:
        A table with ``uri``, or None if it is no such list.

    Raises:
        InputError: If it can't be read.
    """
    shown = printable(redact(source))
    data = read_whole(source, shown)
    try:
        encoding = find_encoding(data)
    except ValueError as error:
        report.add(Reason.NO_LIST, f"{shown} {error}")
        return None
    lines = [line for line in re.split(r"[\r\n]+", data.decode(encoding)) if line.strip(_BLANKS)]
    named = sum(has_scheme(line) or is_image(line.strip(_BLANKS + "\"'")) for line in lines)
    if not lines or named < len(lines) / 2:
        other = next((line for line in lines if not is_image(line)), "")
        report.add(Reason.NO_LIST, f"{shown} has the line {other[:60]!r}" if other else shown)
        return None
    if not encoding.startswith("utf-8"):
        report.notes.append(f"{shown}: read as {encoding}")
    return pa.table({URI: pa.array(_resolve(lines, source, report), pa.string())})


# Paths --------------------------------------------------------------------------------------------


def _resolve(values: list[str | None], source: str, report: ListingReport) -> list[str | None]:
    """Return the absolute paths or URIs of the values of a list."""
    local = _FILE_URI.sub("", source)
    if has_scheme(local):
        folder = source.rpartition("/")[0]
        return [_resolve_remote(value, folder, report) for value in values]
    folder = str(Path(local).absolute().parent)
    uris = [_resolve_local(value, folder, report) for value in values]
    _look_for_sample(uris, folder, source, report)
    return uris


def _resolve_remote(value: str | None, folder: str, report: ListingReport) -> str | None:
    """Resolve a path beside a list on a remote store, where each check would cost a request."""
    bare = _bare(value, report)
    if bare is None or has_scheme(bare) or bare.startswith("/"):
        return bare
    return f"{folder}/{bare}"


def _bare(value: str | None, report: ListingReport) -> str | None:
    """Return a value without blanks and quotation marks around, None if nothing is left."""
    bare = (value or "").strip(_BLANKS)
    if not bare or bare in MISSING:
        report.add(Reason.NO_PATH, value or "empty")
        return None
    unquoted = _unquoted(bare)
    for reason, before, after in (
        (Reason.BLANKS, value, bare),
        (Reason.QUOTES, bare, unquoted),
    ):
        if before != after:
            report.add(reason, repr(value))
    return unquoted


def _unquoted(text: str) -> str:
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip(_BLANKS) if quoted else text


def _resolve_local(value: str | None, folder: str, report: ListingReport) -> str | None:
    if value is not None and not _SUSPICIOUS.search(value) and value not in MISSING:
        return value if has_scheme(value) else _join(folder, value)
    if value is not None and not has_scheme(value) and os.path.lexists(_join(folder, value)):
        return _join(folder, value)
    bare = _bare(value, report)
    if bare is None or (has_scheme(bare) and not _FILE_URI.match(bare)):
        return bare
    for reasons, text in _readings(bare):
        path = _join(folder, text)
        if os.path.lexists(path):
            for reason in reasons:
                report.add(reason, bare)
            return path
    if _DRIVE.match(bare):
        report.add(Reason.DRIVE, bare)
        return bare
    if "\\" in bare:
        report.add(Reason.BACKSLASHES_MISSING, bare)
    return bare if has_scheme(bare) else _join(folder, bare)


def _join(folder: str, path: str) -> str:
    joined = os.path.join(folder, path)
    return str(Path(joined)) if "//" in joined or "./" in joined else joined


def _readings(bare: str) -> Iterator[tuple[list[Reason], str]]:
    """Yield the possible corrections of a path, the likeliest first, with what was changed."""
    path = _FILE_URI.sub("", bare)
    slashes = path.replace("\\", "/")
    for text, reasons in (
        (path, []),
        (slashes, [Reason.BACKSLASHES]),
        (unquote(path), [Reason.PERCENT]),
        (unquote(slashes), [Reason.BACKSLASHES, Reason.PERCENT]),
    ):
        if reasons and text == path:
            continue
        yield reasons, text
        for form in () if text.isascii() else ("NFC", "NFD"):
            other = unicodedata.normalize(form, text)
            if other != text:
                yield [*reasons, Reason.COMPOSITION], other


# Missing files ---------------------------------------------------------------------------------------


def _look_for_sample(
    uris: Sequence[str | None], folder: str, source: str, report: ListingReport
) -> None:
    """Check a sample of the files, and report it if most do not exist."""
    local = [uri for uri in uris if uri is not None and not has_scheme(uri)]
    sample = local[:: max(1, len(local) // _SAMPLE)][:_SAMPLE]
    missing = [uri for uri in sample if not _is_there(uri)]
    if len(missing) > len(sample) / 2:
        report.add(
            Reason.MISSING,
            f"{len(missing)} of {len(sample)} in {redact(source)}, such as {missing[0]}; "
            f"{_hint(missing[0], folder)}",
            len(missing),
        )


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True  # another matter
    except (OSError, ValueError):
        return False
    return True


def _hint(path: str, folder: str) -> str:
    """Return the likely reason why a file does not exist."""
    relative = os.path.relpath(path, folder)
    if not relative.startswith("..") and os.path.exists(relative):
        return "it is there relative to the working folder: move the list there"
    alike = _alike(path)
    if alike:
        return f"its folder has {alike}"
    return f"relative paths count from the list's folder, {folder}"


def _alike(path: str) -> str:
    """Return the name of a file that differs only in case, accents or suffix; empty if there is none."""
    try:
        names = sorted(os.listdir(os.path.dirname(path)))
    except (OSError, ValueError):
        return ""

    def key(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    wanted = key(os.path.basename(path))
    for find in (key, lambda name: key(os.path.splitext(name)[0])):
        for name in names:
            if find(name) == wanted:
                return name
    return ""
