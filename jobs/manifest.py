"""List images in a Parquet manifest, which `iqa score` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_core.fetching import redact
from iqa_core.files import Folder
from iqa_core.listing import find_images, write_manifest
from iqa_core.releases import RELEASES, read_release, recognise_release
from iqa_core.schema import InputError

from .options import option

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa manifest``."""

    images: tuple[str, ...] = option(
        help="folders (searched to any depth), globs, images, or CSV and TSV files with a column of "
        "paths or URIs, whose other columns are kept; also on s3:// and whatever fsspec reads; or the "
        "folder of a benchmark's official release, whose opinions become columns",
        metavar="IMAGES",
        positional=True,
    )
    output: str = option(help="the manifest to write, a .parquet file", metavar="M")
    uri_column: str | None = option(
        None,
        help="the CSV's column of paths or URIs (default: the first of uri, path, file, filename, "
        "image, image_path, url)",
        metavar="COLUMN",
    )
    release: str = option(
        "auto",
        help="which release the folder is: auto recognises it by its files, none lists the images; "
        f"or {', '.join(RELEASES)}",
        metavar="NAME",
    )


def run(config: Config) -> int:
    """Write the manifest and say what is in it."""
    name = _release(config)
    table: pa.Table
    if name is None:
        table, left_out = find_images(config.images, config.uri_column)
        notes = []
        if left_out:
            notes = [f"{left_out:,} files left out: their suffix is not that of an image"]
    else:
        release = read_release(config.images[0], name)
        table = release.table
        notes = [f"{RELEASES[name].title}: {note}" for note in release.notes]
    write_manifest(table, config.output)
    extra = [column for column in table.column_names if column != "uri"]
    of = f" of {RELEASES[name].title}" if name else ""
    print(f"{redact(config.output)}: {len(table):,} images{of}; columns uri, {', '.join(extra)}")
    print("".join(f"{note}\n" for note in notes), end="")
    return 0


def _release(config: Config) -> str | None:
    """Return which release to read, or None to list images."""
    if config.release == "none":
        return None
    if config.release != "auto":
        if config.release not in RELEASES:
            raise InputError(
                f"--release {config.release} is none of auto, none, {', '.join(RELEASES)}"
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
        if any(sign in folder.root for sign in "*?[") or not folder.fs.isdir(folder.root):
            return None
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"{source} can't be read: {error}") from error
    return recognise_release(source)
