"""List images in a Parquet manifest, which `iqa score` reads."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.releases.read import read_release, recognise_release
from iqa_core.releases.table import RELEASES
from iqa_core.storage.encodings import printable
from iqa_core.storage.folder import Folder
from iqa_core.storage.output_file import check_output_file
from iqa_core.tables.known_images import known_images, without
from iqa_core.tables.listing import find_images, write_manifest
from iqa_core.tables.output_checks import check_no_part

from .options import option

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa manifest``."""

    images: tuple[str, ...] = option(
        help="folders (searched to any depth), globs, images, tar shards, CSV and TSV files with a column "
        "of paths or URIs, whose other columns are kept, or .txt files with one path or URI per line; also "
        "on s3:// and other filesystems of fsspec; or the folder of a benchmark's official release, whose "
        "opinion scores become columns",
        metavar="IMAGES",
        positional=True,
        path=True,
    )
    output: str = option(help="the manifest to write, a .parquet file", metavar="M", path=True)
    without: tuple[str, ...] = option(
        (),
        help="list only images that these do not name: earlier manifests (files, globs or folders), or "
        "outputs of `iqa score`",
        metavar="M",
        path=True,
    )
    uri_column: str | None = option(
        None,
        help="column of the CSV file that holds paths or URIs (default: the first of uri, path, file, "
        "filename, image, image_path, url and the like)",
        metavar="COLUMN",
    )
    release: str = option(
        "auto",
        help="the folder's release: auto recognises it by its files, none lists the images; "
        f"or {', '.join(RELEASES)}",
        metavar="NAME",
    )


def run(config: Config) -> int:
    """Write the manifest and print a summary."""
    # Now, as listing may take hours.
    check_output_file("output", config.output, ".parquet", config.images)
    check_no_part(config.output)
    known = known_images(config.without, config.output) if config.without else None
    name = _release(config)
    table: pa.Table
    summary: dict[str, Any] = {"sources": [printable(redact(image)) for image in config.images]}
    if name is None:
        table, report = find_images(config.images, config.uri_column)
        notes = [*report.notes, *report.lines()]
        summary |= {"rows": len(table), **report.document()}
    else:
        release = read_release(config.images[0], name)
        table = release.table
        notes = [f"{RELEASES[name].title}: {note}" for note in release.notes]
        summary |= {"rows": len(table), "release": name, "notes": list(release.notes)}
    if known is not None:
        listed, table = len(table), without(table, known)
        summary |= {"rows": len(table), "known": listed - len(table)}
        notes.append(f"{listed - len(table):,} of {listed:,} images left out: --without names them")
        if not len(table):
            _print(f"no new image: {redact(config.output)} is not written")
            _print(notes[-1])
            return 0
    write_manifest(table, config.output, summary)
    columns = ["uri", *(column for column in table.column_names if column != "uri")]
    of = f" of {RELEASES[name].title}" if name else ""
    _print(f"{redact(config.output)}: {len(table):,} images{of}; columns {', '.join(columns)}")
    for note in notes:
        _print(note)
    return 0


def _print(line: str) -> None:
    """Print a line, with escapes for characters that the terminal can't show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def _release(config: Config) -> str | None:
    """Return which release to read, or None to list images."""
    if config.release == "none":
        return None
    if config.release != "auto":
        if config.release not in RELEASES:
            raise InputError(
                f"--release {config.release} is none of auto, none, {', '.join(RELEASES)}"
            )
        if config.uri_column is not None:
            raise InputError(
                f"--uri-column is of CSV and TSV files, but --release {config.release} has its own lists: "
                "leave out one of the two"
            )
        if len(config.images) != 1:
            raise InputError(
                f"--release {config.release} reads one folder, but there are {len(config.images)}"
            )
        return config.release
    if len(config.images) != 1 or config.uri_column is not None:
        return None
    source = config.images[0]
    try:
        folder = Folder.of(source)
        if any(character in folder.root for character in "*?[") or not folder.fs.isdir(folder.root):
            return None
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"{source} can't be read: {error}") from error
    return recognise_release(source)
