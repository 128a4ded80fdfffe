"""List images in a Parquet manifest, which `iqa score` reads."""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.manifest import find_images, write_manifest
from jobs.options import option

__all__ = ["Config", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ``iqa manifest``."""

    images: tuple[str, ...] = option(
        help="folders (searched to any depth), globs, images, or CSV and TSV files with a column of "
        "paths or URIs, whose other columns are kept; also on s3:// and whatever fsspec reads",
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


def run(config: Config) -> int:
    """Write the manifest and say what is in it."""
    table, left_out = find_images(config.images, config.uri_column)
    write_manifest(table, config.output)
    extra = [name for name in table.column_names if name != "uri"]
    print(f"{config.output}: {len(table):,} images; columns uri, {', '.join(extra)}")
    if left_out:
        print(f"{left_out:,} files left out: their suffix is not that of an image")
    return 0
