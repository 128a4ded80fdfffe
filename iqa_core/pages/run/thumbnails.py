"""Thumbnails of the images that a page shows, each made once.

Only images that the run itself read (status ``ok``) are opened again, and of these only the ones
shown. Whoever wrote the manifest is not trusted more than by the run: the same :class:`Fetcher` reads.
"""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import pyarrow.parquet as pq
from markupsafe import Markup
from PIL import Image

from iqa_core.columns import HEIGHT, IMAGE, MANIFEST_FILE, MANIFEST_ROW, URI, WIDTH
from iqa_core.errors import ImageError, Status
from iqa_core.images.decode import decode_image
from iqa_core.pages.run.data import take
from iqa_core.preprocess import Preprocess
from iqa_core.storage.folder import has_scheme

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from iqa_core.fetch.fetcher import Fetcher
    from iqa_core.pages.run.data import Run
    from iqa_core.pages.run.layout import Layout

__all__ = [
    "MAX_FILE_BYTES",
    "Card",
    "Thumbnail",
    "folder_of",
    "load_cards",
    "make_cards",
    "thumbnail_of",
]

MAX_FILE_BYTES = 2**27  # a thumbnail is not worth reading more

_SIDE = 160  # longer side of a thumbnail in the sections, in pixels
_SMALL_SIDE = 96  # of one that only the table shows
_QUALITIES = ((75, 9_000), (50, 9_000), (25, None))  # and the bytes up to which each will do
_SMALL_QUALITIES = ((70, 3_500), (45, 3_500), (20, None))
_READERS = 16
_SECONDS = 60.0  # for all of them: a store that hangs must not keep the page from being made


class Thumbnail(NamedTuple):
    """A small image as a data URI, and its size in pixels."""

    source: Markup
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Card:
    """A row with its thumbnail, or the reason why there is none."""

    row: dict[str, Any]
    thumbnail: Thumbnail | None
    reason: str | None = None


def load_cards(run: Run, layout: Layout, fetcher: Fetcher, folder: str | None) -> dict[int, Card]:
    """Read the rows shown and make their thumbnails.

    Args:
        run: The run.
        layout: What the page shows.
        fetcher: Reads the images.
        folder: The manifest's, see :func:`folder_of`; None if unknown.
    """
    large = set(layout.rows)
    rows = take(run, sorted(large | set(layout.table)))
    # --thumbnails 0 opens no image, not even for the table
    return make_cards(rows, large, fetcher, folder, open_images=bool(large))


def make_cards(
    rows: Mapping[int, dict[str, Any]],
    large: Collection[int],
    fetcher: Fetcher,
    folder: str | None,
    *,
    open_images: bool = True,
) -> dict[int, Card]:
    """Make the thumbnails of rows.

    Args:
        rows: By number, with identity, ``uri``, ``status``, and size if known.
        large: Numbers of those whose thumbnails are as sections show them; others are smaller.
        fetcher: Reads the images.
        folder: As of :func:`load_cards`.
        open_images: False makes no thumbnail.
    """
    scored = {i: row for i, row in rows.items() if row["status"] == Status.OK.value}
    wanted = scored if open_images else {}
    inline = dict(_inline_images([(i, r) for i, r in wanted.items() if not r[URI]], folder))
    deadline = time.monotonic() + _SECONDS

    def load(index: int) -> Card:
        row = rows[index]
        try:
            if time.monotonic() > deadline:
                return Card(row, None, f"not read within {_SECONDS:.0f} s")
            data = inline.get(index) or _fetch(row[URI], fetcher, folder)
            side = (_SIDE, _QUALITIES) if index in large else (_SMALL_SIDE, _SMALL_QUALITIES)
            return Card(row, _thumbnail(data, row.get(WIDTH), row.get(HEIGHT), *side))
        except ImageError as error:
            return Card(row, None, error.message)
        except Exception as error:  # an unknown file: whatever it raises, the page is made
            return Card(row, None, f"{type(error).__name__}: {error}")

    cards = {i: Card(row, None) for i, row in rows.items()}
    order = sorted(wanted, key=lambda i: (i not in large, i))  # the sections' first
    with ThreadPoolExecutor(_READERS) as pool:
        cards |= zip(order, pool.map(load, order), strict=True)
    return cards


def thumbnail_of(uri: str | None, fetcher: Fetcher, folder: str | None) -> Thumbnail | None:
    """Return a small thumbnail of one image, or None if it can't be read.

    Args:
        uri: Of the image.
        fetcher: Reads it.
        folder: The manifest's, see :func:`folder_of`; None if unknown.
    """
    try:
        data = _fetch(uri, fetcher, folder)
        return _thumbnail(data, None, None, _SMALL_SIDE, _SMALL_QUALITIES)
    except Exception:  # an unknown file: whatever it raises, the page is made
        return None


def folder_of(manifest: str | None) -> str | None:
    """Return a manifest's folder, as a path or URI without a slash at its end."""
    if not manifest:
        return None
    manifest = manifest.rstrip("/")
    is_folder, exists = not manifest.endswith((".parquet", ".pq")), False
    try:
        filesystem, path = fsspec.core.url_to_fs(manifest)
        if exists := filesystem.exists(path):
            is_folder = filesystem.isdir(path)
    except Exception:  # noqa: S110  the page can do without
        pass
    # A glob: the folder above its first sign.
    if not exists and any(sign in manifest for sign in "*?["):
        while any(sign in manifest for sign in "*?["):
            manifest = manifest.rpartition("/")[0]
        return manifest or "."
    return manifest if is_folder else manifest.rpartition("/")[0] or "."


def _fetch(uri: str | None, fetcher: Fetcher, folder: str | None) -> bytes:
    if not uri:
        raise ImageError(Status.NOT_FOUND, "the row has no uri, and no image in the manifest")
    if folder is None and not has_scheme(uri) and not uri.startswith("/"):
        raise ImageError(Status.NOT_FOUND, "the manifest's folder is unknown: give --manifest")
    return fetcher.fetch(uri)


def _inline_images(
    rows: Sequence[tuple[int, dict[str, Any]]], folder: str | None
) -> Iterable[tuple[int, bytes]]:
    """Yield the encoded images that the manifest itself holds, one row group at a time."""
    if folder is None:
        return
    by_file: dict[str, list[tuple[int, int]]] = {}
    for index, row in rows:
        by_file.setdefault(row[MANIFEST_FILE], []).append((row[MANIFEST_ROW], index))
    for name, places in by_file.items():
        try:
            with fsspec.open(f"{folder}/{name}", "rb") as file:
                yield from _read_places(pq.ParquetFile(file), sorted(places))
        except Exception:  # noqa: S112  a placeholder instead
            continue


def _read_places(
    file: pq.ParquetFile, places: Sequence[tuple[int, int]]
) -> Iterable[tuple[int, bytes]]:
    start = 0
    for group_number in range(file.num_row_groups):
        group = file.metadata.row_group(group_number)
        here = [(row - start, index) for row, index in places if 0 <= row - start < group.num_rows]
        start += group.num_rows
        if not here or group.total_byte_size > 4 * MAX_FILE_BYTES:
            continue
        column = file.read_row_group(group_number, columns=[IMAGE])[IMAGE]
        for row, index in here:
            value = column[row].as_py()
            data = value.get("bytes") if isinstance(value, dict) else value
            if data:
                yield index, data


def _thumbnail(
    data: bytes,
    width: int | None,
    height: int | None,
    side: int,
    qualities: Sequence[tuple[int, int | None]],
) -> Thumbnail:
    preprocess = None
    if width and height:
        shrink = min(1.0, side / max(width, height))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        preprocess = Preprocess(size, (0.0,) * 3, (1.0,) * 3, resize_mode="squash")
    image = Image.fromarray(decode_image(data, preprocess).pixels)
    image.thumbnail((side, side))
    for quality, limit in qualities:  # images of noise must not make the page many times larger
        buffer = BytesIO()
        image.save(buffer, "WEBP", quality=quality)
        if limit is None or buffer.tell() <= limit:
            break
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    source = Markup(f"data:image/webp;base64,{encoded}")  # noqa: S704
    return Thumbnail(source, image.width, image.height)
