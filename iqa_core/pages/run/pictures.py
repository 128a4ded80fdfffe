"""Which images a page shows, and their thumbnails, each made once.

Only images that the run itself read (status ``ok``) are opened again, and of these only the ones
shown. Who wrote the manifest is not trusted more than by the run: the same :class:`Fetcher` reads.
"""

from __future__ import annotations

import base64
import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from iqa_core.columns import HEIGHT, IMAGE, MANIFEST_FILE, MANIFEST_ROW, URI, WIDTH
from iqa_core.errors import ImageError, Status
from iqa_core.images.decode import decode_image
from iqa_core.pages.drift import compare_pairs
from iqa_core.pages.run.data import take
from iqa_core.pages.run.text import number
from iqa_core.preprocess import Preprocess
from iqa_core.storage.folder import has_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from iqa_core.fetch.fetcher import Fetcher
    from iqa_core.pages.run.data import Other, Run

__all__ = [
    "MAX_FILE_BYTES",
    "Card",
    "Dispute",
    "Layout",
    "Strip",
    "choose_images",
    "choose_rows",
    "folder_of",
    "load_cards",
]

MAX_FILE_BYTES = 2**27  # a thumbnail is not worth reading more

_SIDE = 160  # longer side of a thumbnail in the sections, in pixels
_SMALL_SIDE = 96  # of one that only the table shows
_QUALITIES = ((75, 9_000), (50, 9_000), (25, None))  # and the bytes up to which each will do
_SMALL_QUALITIES = ((70, 3_500), (45, 3_500), (20, None))
_READERS = 16
_SECONDS = 60.0  # for all of them: a store that hangs must not keep the page from being made
_FAILURES = 100  # rows without a score in the table, at most a fifth


@dataclass(frozen=True, eq=False)
class Strip:
    """A tenth of the scored rows, by rank: its range, its size and the rows shown."""

    low: float
    high: float
    count: int
    rows: list[int]


@dataclass(frozen=True, eq=False)
class Dispute:
    """Images that are judged most differently: by whom, the rows, and a line for each."""

    section: str
    title: str
    reasons: dict[int, str]


@dataclass(frozen=True, eq=False)
class Layout:
    """The rows of the page's sections.

    Attributes:
        worst: Rows with the lowest scores, the lowest first.
        best: Rows with the highest scores, the highest first.
        strips: The contact sheet.
        disputes: What the runs, or the pairs, disagree about.
        spread: (K,) how far the ranks by the pairs lie apart, 0 to 1; None with one pair.
        table: Rows of the table, by score, those without one last.
    """

    worst: list[int]
    best: list[int]
    strips: list[Strip]
    disputes: list[Dispute] = field(default_factory=list)
    spread: np.ndarray | None = None
    table: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[int]:
        """All rows whose image a section shows, each once, ascending."""
        strips = (i for strip in self.strips for i in strip.rows)
        disputes = (i for dispute in self.disputes for i in dispute.reasons)
        return sorted({*self.worst, *self.best, *strips, *disputes})


@dataclass(frozen=True, eq=False)
class Card:
    """A row with its thumbnail: data URI, width and height, or the reason why there is none."""

    row: dict[str, Any]
    thumbnail: tuple[str, int, int] | None
    reason: str | None = None


# Which --------------------------------------------------------------------------------------------


def choose_images(score: np.ndarray, thumbnails: int) -> Layout:
    """Choose the best, the worst and the contact sheet.

    Args:
        score: (K,), NaN where there is none.
        thumbnails: Most images in the contact sheet; a fifth of it, at most 12, are the best and
            the worst each.
    """
    order = np.argsort(score, kind="stable")  # NaN last
    order = order[: int(np.isfinite(score).sum())]
    edge = min(12, math.ceil(thumbnails / 5), math.ceil(len(order) / 2))
    per_strip = thumbnails // 10 or min(thumbnails, 1)
    strips = [
        Strip(float(score[part[0]]), float(score[part[-1]]), len(part), _evenly(part, per_strip))
        for part in np.array_split(order, min(10, max(1, len(order))))
        if len(part)
    ]
    if thumbnails < 10:
        strips = strips[:: max(1, math.ceil(len(strips) / max(1, thumbnails)))]
    return Layout(
        worst=[int(i) for i in order[:edge]],
        best=[int(i) for i in order[::-1][:edge]],
        strips=strips if thumbnails else [],
    )


def choose_rows(run: Run, other: Other | None, thumbnails: int, rows: int) -> Layout:
    """Choose all that the page shows of single rows.

    Args:
        run: The run.
        other: The run to compare with.
        thumbnails: See :func:`choose_images`.
        rows: Most rows in the table: failures of each kind (up to a fifth), what the sections show,
            rows evenly spaced by rank.
    """
    layout = choose_images(run.score, thumbnails)
    spread = None
    if other is not None:
        layout.disputes.extend(_disputes_of_runs(other, thumbnails))
    if len(run.pairs) > 1:
        pairs = compare_pairs(run.pairs)
        spread = pairs.spread
        names = list(run.pairs)
        reasons = {
            i: f"{names[pairs.highest[i]]}: above {pairs.ranks[pairs.highest[i], i]:.0%} of the "
            f"images, {names[pairs.lowest[i]]}: {pairs.ranks[pairs.lowest[i], i]:.0%}"
            for i in _largest(pairs.spread, _edge(thumbnails))
        }
        layout.disputes.append(Dispute("pairs", "Most disputed between the pairs", reasons))
    layout = replace(
        layout,
        disputes=[dispute for dispute in layout.disputes if dispute.reasons],
        spread=spread,
    )
    return replace(layout, table=_table_rows(run, layout, rows))


def _edge(thumbnails: int) -> int:
    return min(12, math.ceil(thumbnails / 5))


def _disputes_of_runs(other: Other, thumbnails: int) -> list[Dispute]:
    found = other.found

    def told(i: int) -> str:
        return (
            f"above {found.here[i]:.0%} of the images here, {found.there[i]:.0%} there "
            f"({number(float(found.score[i]))})"
        )

    most = _edge(thumbnails)
    return [
        Dispute("drift", title, {i: told(i) for i in rows})
        for title, rows in (
            ("Better here than there", _largest(found.difference, most)),
            ("Worse here than there", _largest(-found.difference, most)),
        )
    ]


def _table_rows(run: Run, layout: Layout, rows: int) -> list[int]:
    if rows >= len(run.ok):
        chosen = set(range(len(run.ok)))
    else:
        chosen = set(_failed_rows(run, min(_FAILURES, rows // 5)))
        ends = [row for pair in zip(layout.worst, layout.best, strict=True) for row in pair]
        disputes = [row for dispute in layout.disputes for row in dispute.reasons]
        strips = [row for strip in layout.strips for row in strip.rows]
        shown = list(dict.fromkeys([*ends, *disputes, *strips]))
        chosen |= set(shown[: rows - len(chosen)])
        order = np.argsort(run.score, kind="stable")[: int(np.isfinite(run.score).sum())]
        order = order[~np.isin(order, list(chosen))]
        chosen |= set(_evenly(order, rows - len(chosen)))
    score = np.where(np.isfinite(run.score), run.score, np.inf)
    return sorted(chosen, key=lambda i: (float(score[i]), i))


def _failed_rows(run: Run, most: int) -> list[int]:
    """Return failed rows in turn from each kind, so that a frequent one hides no rare one."""
    failed = np.flatnonzero(~run.ok)
    kinds = run.status.take(failed).to_pylist()
    seen: Counter[str] = Counter()
    turns = []
    for row, kind in zip(failed, kinds, strict=True):
        if seen[kind] < most:
            turns.append((seen[kind], int(row)))
            seen[kind] += 1
    return [row for _, row in sorted(turns)[:most]]


def _largest(values: np.ndarray, count: int) -> list[int]:
    """Return the places of up to ``count`` values above 0, the largest first."""
    values = np.where(np.isfinite(values), values, 0.0)
    count = min(count, int((values > 0).sum()))
    if not count:
        return []
    places = np.argpartition(-values, count - 1)[:count]
    return [int(i) for i in places[np.lexsort((places, -values[places]))]]


def _evenly(rows: np.ndarray, count: int) -> list[int]:
    """Return up to ``count`` of ``rows``, evenly spaced from the first to the last."""
    if not count:
        return []
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [int(rows[i]) for i in places]


# Thumbnails ---------------------------------------------------------------------------------------


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
    scored = {i: row for i, row in rows.items() if row["status"] == Status.OK.value}
    # --thumbnails 0 opens no image, for the table neither
    wanted = scored if large else {}
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
        except Exception as error:  # a stranger's file: whatever it is, the report goes on
            return Card(row, None, f"{type(error).__name__}: {error}")

    cards = {i: Card(row, None) for i, row in rows.items()}
    order = sorted(wanted, key=lambda i: (i not in large, i))  # the sections' first
    with ThreadPoolExecutor(_READERS) as pool:
        cards |= zip(order, pool.map(load, order), strict=True)
    return cards


def folder_of(manifest: str | None) -> str | None:
    """Return a manifest's folder, as a path or URI without a slash at its end."""
    if not manifest:
        return None
    manifest = manifest.rstrip("/")
    if any(sign in manifest for sign in "*?["):  # a glob: the folder above its first sign
        while any(sign in manifest for sign in "*?["):
            manifest = manifest.rpartition("/")[0]
        return manifest or "."
    is_folder = not manifest.endswith((".parquet", ".pq"))
    try:
        filesystem, path = fsspec.core.url_to_fs(manifest)
        if filesystem.isdir(path):
            is_folder = True
        elif filesystem.exists(path):
            is_folder = False
    except Exception:  # noqa: S110  the page can do without
        pass
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
) -> tuple[str, int, int]:
    preprocess = None
    if width and height:
        shrink = min(1.0, side / max(width, height))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        preprocess = Preprocess(size, (0.0,) * 3, (1.0,) * 3, resize_mode="squash")
    image = Image.fromarray(decode_image(data, preprocess).pixels)
    image.thumbnail((side, side))
    for quality, limit in qualities:  # a page of noise must not be many times as large
        buffer = BytesIO()
        image.save(buffer, "WEBP", quality=quality)
        if limit is None or buffer.tell() <= limit:
            break
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/webp;base64,{encoded}", image.width, image.height
