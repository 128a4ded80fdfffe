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
from markupsafe import Markup
from PIL import Image

from iqa_core.columns import HEIGHT, URI, WIDTH
from iqa_core.errors import ImageError, Status
from iqa_core.images.decode import decode_image
from iqa_core.pages.run.data import take
from iqa_core.pages.run.inline import NO_FOLDER, NO_IMAGE, read_inline
from iqa_core.preprocess import Preprocess
from iqa_core.storage.folder import has_scheme

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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
    deadline = time.monotonic() + _SECONDS

    def check_time() -> None:
        if time.monotonic() > deadline:
            raise ImageError(Status.TIMEOUT, f"not read within {_SECONDS:.0f} s")

    def load(index: int, image: bytes | str | None = None) -> Card:
        """Return the card of a row, with its inline image or the reason why there is none."""
        row = rows[index]
        if isinstance(image, str):
            return Card(row, None, image)
        try:
            if image is None:
                check_time()
                image = _fetch(row[URI], fetcher, folder)
            side = (_SIDE, _QUALITIES) if index in large else (_SMALL_SIDE, _SMALL_QUALITIES)
            return Card(row, _thumbnail(image, row.get(WIDTH), row.get(HEIGHT), *side))
        except ImageError as error:
            return Card(row, None, error.message)
        except Exception as error:  # an unknown file: whatever it raises, the page is made
            return Card(row, None, f"{type(error).__name__}: {error}")

    order = sorted(wanted, key=lambda i: (i not in large, i))  # the sections' first
    inline = {i: rows[i] for i in order if not rows[i][URI]}
    with ThreadPoolExecutor(_READERS) as pool:
        loading = {i: pool.submit(load, i) for i in order if i not in inline}
        for own in (True, False):
            part = {i: row for i, row in inline.items() if (i in large) is own}
            for i, image in read_inline(part, folder, MAX_FILE_BYTES, check_time):
                loading[i] = pool.submit(load, i, image)
    return {i: loading[i].result() if i in loading else Card(row, None) for i, row in rows.items()}


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
        raise ImageError(Status.NOT_FOUND, NO_IMAGE)
    if folder is None and not has_scheme(uri) and not uri.startswith("/"):
        raise ImageError(Status.NOT_FOUND, NO_FOLDER)
    return fetcher.fetch(uri)


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
