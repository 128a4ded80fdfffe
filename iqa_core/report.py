"""A finished run as one self-contained HTML page: histograms, contact sheet, failures, run facts.

The page holds no script and asks for nothing outside of itself, and its content security policy
says so. URIs, errors and column values come from strangers: each goes through :func:`_text`. Only
images that the run itself read (status ``ok``) are opened again, and of these only the ones shown.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from PIL import Image

from iqa_core.drift import RunDispute, compare_pairs, compare_runs
from iqa_core.images import decode_image
from iqa_core.metrics import srcc
from iqa_core.schema import (
    HEIGHT,
    IDENTITY,
    IMAGE,
    IMAGE_ID,
    MANIFEST_FILE,
    MANIFEST_ROW,
    URI,
    WIDTH,
    InputError,
    Preprocess,
    Status,
)

__all__ = ["ReportFacts", "write_report"]

_OWN_COLUMNS = frozenset(
    {*IDENTITY, IMAGE_ID, URI, WIDTH, HEIGHT}
    | {"status", "error", "score", "scores", "margins", "embedding"}
)
_REQUIRED = (MANIFEST_FILE, MANIFEST_ROW, URI, "status", "error", "score", "scores")
_SIDE = 160  # longer side of a thumbnail, in pixels
_MAX_FILE_BYTES = 2**27  # a thumbnail is not worth reading more
_MAX_GROUPS = 30
_MAX_LEVELS = 8
_EXAMPLES = 3
_NONE = "\N{EN DASH}"
_READERS = 8
_BINS = 40
_PAIR_BINS = 24

_DISTORTION = re.compile("distort|degrad|corrupt", re.IGNORECASE)
_LEVEL = re.compile("level|severity|strength", re.IGNORECASE)

# What must not travel with a page that is passed around: passwords and signatures in URIs.
_USER_INFO = re.compile(r"(\w://)[^/@\s]+@")
_QUERY = re.compile(r"(\w://[^\s?'\"]+)\?[^\s'\"]+")
# Control characters, and the marks that turn the direction of a text around.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class ReportFacts:
    """What a written report holds.

    Attributes:
        output: Path of the HTML file.
        rows: Rows of the run.
        scored: Rows with status ``ok``.
        failed: All other rows.
        shown: Distinct images shown.
        missing: Those of them that have a placeholder, because no thumbnail could be made.
        size: Size of the HTML file in bytes.
    """

    output: str
    rows: int
    scored: int
    failed: int
    shown: int
    missing: int
    size: int


def write_report(
    scores: str,
    output: str,
    *,
    manifest: str | None = None,
    compare: str | None = None,
    thumbnails: int = 60,
    title: str | None = None,
) -> ReportFacts:
    """Write the report of a run as one HTML file, under its final name only once complete.

    Args:
        scores: Directory or fsspec URI with the run's ``part-*.parquet`` and ``_run/``. A missing
            or damaged file in ``_run/`` only leaves its facts unknown.
        output: Path of the HTML file. Its folder must exist; an existing file is replaced.
        manifest: Manifest file or directory from which relative URIs and inline images are
            resolved; default: the one in the run's plan.
        compare: Another run, such as an earlier one, to show the drift from and the images that the
            two disagree about. Rows are joined by their place where both runs are of one manifest,
            else by URI.
        thumbnails: Most images in the contact sheet; the best and the worst images, and the most
            disputed ones, are up to a fifth as many, each. 0 opens no image.
        title: Heading of the page.

    Returns:
        Counts of rows and images.

    Raises:
        InputError: If ``scores`` or ``compare`` holds no readable part file, the folder of
            ``output`` does not exist or ``thumbnails`` is negative.
    """
    if thumbnails < 0:
        raise InputError(f"thumbnails is {thumbnails}, but must be at least 0: give 0 for none")
    target = _check_output(output)
    run = _load_run(scores)
    other = None if compare is None else _load_other(run, compare)
    layout = _choose_images(run.score, thumbnails)
    layout.disputes.extend(_choose_disputes(run, other, thumbnails))
    cards = _load_cards(run, layout, manifest or run.manifest)
    page = _page(run, other, layout, cards, title or "Image quality report")
    content = page.encode("utf-8", "replace")
    _write_atomically(target, content)
    scored = int(run.ok.sum())
    return ReportFacts(
        output=str(target),
        rows=len(run.ok),
        scored=scored,
        failed=len(run.ok) - scored,
        shown=len(cards),
        missing=sum(card.thumbnail is None for card in cards.values()),
        size=len(content),
    )


def _check_output(output: str) -> Path:
    target = Path(output)
    if not target.parent.is_dir():
        raise InputError(
            f"--output {output}: the folder {target.parent} does not exist: create it first, or "
            "give a path in a folder that exists"
        )
    if target.is_dir():
        raise InputError(f"--output {output} is a folder: give the name of a file, as report.html")
    return target


def _write_atomically(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


# Reading the run ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """A run without its long columns, which are read for the shown rows only.

    ``score`` and the values of ``pairs`` are (N,) float64, NaN where there is no score.
    """

    dataset: Any
    ok: np.ndarray
    score: np.ndarray
    status: Any  # pyarrow.ChunkedArray
    pairs: dict[str, np.ndarray]
    kept: dict[str, Any]
    config: dict[str, Any]
    summary: dict[str, Any]
    manifest: str | None
    files: list[tuple[str, int]]  # of the manifest, name and size; empty if the plan is unknown


@dataclass(frozen=True, eq=False)
class _Other:
    """The run to compare with."""

    name: str
    config: dict[str, Any]
    found: RunDispute


def _load_other(run: _Run, compare: str) -> _Other:
    filesystem, path = fsspec.core.url_to_fs(compare)
    dataset = _open_parts(compare, filesystem, path, "compare")
    columns = [MANIFEST_FILE, MANIFEST_ROW, URI, "status", "score"]
    try:
        tables = [one.to_table(columns=columns) for one in (run.dataset, dataset)]
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(compare, error, "compare") from error
    files = _manifest_files(_read_json(filesystem, f"{path}/_run/plan.json"))
    same = bool(files) and files == run.files
    return _Other(
        name=compare,
        config=_read_json(filesystem, f"{path}/_run/config.json"),
        found=compare_runs(*tables, same_manifest=same),
    )


def _manifest_files(plan: Mapping[str, Any]) -> list[tuple[str, int]]:
    try:
        return [(str(file["name"]), int(file["size"])) for file in plan["files"]]
    except (KeyError, TypeError, ValueError):
        return []


def _load_run(scores: str) -> _Run:
    filesystem, path = fsspec.core.url_to_fs(scores)
    dataset = _open_parts(scores, filesystem, path)
    kept = [field.name for field in dataset.schema if _is_described(field)]
    try:
        table = dataset.to_table(columns=["status", "score", "scores", *kept])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(scores, error) from error
    ok = np.asarray(table["status"].to_pandas() == Status.OK.value, dtype=bool)
    plan = _read_json(filesystem, f"{path}/_run/plan.json")
    manifest = plan.get("manifest")
    return _Run(
        dataset=dataset,
        ok=ok,
        score=np.where(ok, _floats(table["score"]), np.nan),
        status=table["status"],
        pairs={
            field.name: np.where(ok, _floats(pc.struct_field(table["scores"], [i])), np.nan)
            for i, field in enumerate(table["scores"].type)
        },
        kept={name: table[name] for name in kept},
        config=_read_json(filesystem, f"{path}/_run/config.json"),
        summary=_read_json(filesystem, f"{path}/_run/summary.json"),
        manifest=manifest if isinstance(manifest, str) else None,
        files=_manifest_files(plan),
    )


def _open_parts(scores: str, filesystem: Any, path: str, option: str = "scores") -> Any:  # noqa: ANN401
    try:
        names = [name.rstrip("/") for name in filesystem.ls(path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        names = []
    parts = sorted(name for name in names if re.fullmatch(r"part-.*\.parquet", Path(name).name))
    if not parts:
        raise InputError(
            f"--{option} {scores} holds no part-*.parquet: give the --output directory of a scoring "
            "run"
        )
    try:
        dataset = ds.dataset(parts, filesystem=filesystem, format="parquet")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(scores, error, option) from error
    absent = [name for name in _REQUIRED if name not in dataset.schema.names]
    if absent or not pa.types.is_struct(dataset.schema.field("scores").type):
        raise InputError(
            f"--{option} {scores} has part files without the column {(absent or ['scores'])[0]!r} "
            "of scored rows: give the --output directory of a scoring run"
        )
    return dataset


def _unreadable(scores: str, error: Exception, option: str = "scores") -> InputError:
    reason = " ".join(str(error).split())[:300]
    return InputError(f"--{option} {scores} can't be read: {reason}: score again, or restore it")


def _read_json(filesystem: Any, path: str) -> dict[str, Any]:  # noqa: ANN401
    try:
        document = json.loads(filesystem.cat_file(path))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_number(kind: Any) -> bool:  # noqa: ANN401
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_text(kind: Any) -> bool:  # noqa: ANN401
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    )


def _is_described(field: Any) -> bool:  # noqa: ANN401
    return field.name not in _OWN_COLUMNS and (_is_number(field.type) or _is_text(field.type))


def _floats(column: Any) -> np.ndarray:  # noqa: ANN401
    """Return a numeric Arrow column as (N,) float64, null as NaN."""
    values = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


# Which images, and their thumbnails ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Strip:
    """A tenth of the scored rows, by rank: its range, its size and the rows shown."""

    low: float
    high: float
    count: int
    rows: list[int]


@dataclass(frozen=True, eq=False)
class _Dispute:
    """Images that are judged most differently: by whom, the rows, and a line for each."""

    section: str
    title: str
    reasons: dict[int, str]


@dataclass(frozen=True, eq=False)
class _Layout:
    worst: list[int]
    best: list[int]
    strips: list[_Strip]
    disputes: list[_Dispute] = field(default_factory=list)

    @property
    def rows(self) -> list[int]:
        """All rows shown, each once, ascending."""
        strips = (i for strip in self.strips for i in strip.rows)
        disputes = (i for dispute in self.disputes for i in dispute.reasons)
        return sorted({*self.worst, *self.best, *strips, *disputes})


@dataclass(frozen=True, eq=False)
class _Card:
    row: dict[str, Any]
    thumbnail: tuple[str, int, int] | None  # data URI, width, height


def _choose_images(score: np.ndarray, thumbnails: int) -> _Layout:
    order = np.argsort(score, kind="stable")  # NaN last
    order = order[: int(np.isfinite(score).sum())]
    edge = min(12, math.ceil(thumbnails / 5), math.ceil(len(order) / 2))
    per_strip = thumbnails // 10 or min(thumbnails, 1)
    strips = [
        _Strip(float(score[part[0]]), float(score[part[-1]]), len(part), _spread(part, per_strip))
        for part in np.array_split(order, min(10, max(1, len(order))))
        if len(part)
    ]
    if thumbnails < 10:
        strips = strips[:: max(1, math.ceil(len(strips) / max(1, thumbnails)))]
    return _Layout(
        worst=[int(i) for i in order[:edge]],
        best=[int(i) for i in order[::-1][:edge]],
        strips=strips if thumbnails else [],
    )


def _choose_disputes(run: _Run, other: _Other | None, thumbnails: int) -> list[_Dispute]:
    most = min(12, math.ceil(thumbnails / 5))
    disputes = []
    if other is not None:
        found = other.found
        difference = found.difference

        def told(i: int) -> str:
            return (
                f"above {found.here[i]:.0%} of the images here, {found.there[i]:.0%} there "
                f"({_number(float(found.score[i]))})"
            )

        for title, rows in (
            ("Better here than there", _largest(difference, most)),
            ("Worse here than there", _largest(-difference, most)),
        ):
            disputes.append(_Dispute("drift", title, {i: told(i) for i in rows}))
    if len(run.pairs) > 1:
        pairs = compare_pairs(run.pairs)
        names = list(run.pairs)
        reasons = {
            i: f"{names[pairs.highest[i]]}: above {pairs.ranks[pairs.highest[i], i]:.0%} of the "
            f"images, {names[pairs.lowest[i]]}: {pairs.ranks[pairs.lowest[i], i]:.0%}"
            for i in _largest(pairs.spread, most)
        }
        disputes.append(_Dispute("pairs", "Most disputed between the pairs", reasons))
    return [dispute for dispute in disputes if dispute.reasons]


def _largest(values: np.ndarray, count: int) -> list[int]:
    """Return the places of up to ``count`` values above 0, the largest first."""
    values = np.where(np.isfinite(values), values, 0.0)
    count = min(count, int((values > 0).sum()))
    if not count:
        return []
    places = np.argpartition(-values, count - 1)[:count]
    return [int(i) for i in places[np.lexsort((places, -values[places]))]]


def _spread(rows: np.ndarray, count: int) -> list[int]:
    """Return up to ``count`` of ``rows``, evenly spaced from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [int(rows[i]) for i in places]


def _take(run: _Run, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    wanted = [*_REQUIRED, WIDTH, HEIGHT]
    columns = [name for name in wanted if name in run.dataset.schema.names]
    if not rows:
        return {}
    ascending = sorted(rows)
    taken = run.dataset.take(pa.array(ascending, pa.int64()), columns=columns).to_pylist()
    return dict(zip(ascending, taken, strict=True))


def _load_cards(run: _Run, layout: _Layout, manifest: str | None) -> dict[int, _Card]:
    rows = _take(run, layout.rows)
    folder = _manifest_folder(manifest)
    inline = {
        index: data
        for index, data in _inline_images([(i, r) for i, r in rows.items() if not r[URI]], folder)
    }

    def load(item: tuple[int, dict[str, Any]]) -> _Card:
        index, row = item
        try:
            data = inline.get(index) or _fetch(row[URI], folder)
            return _Card(row, _thumbnail(data, row.get(WIDTH), row.get(HEIGHT)))
        except Exception:  # a stranger's file or server: whatever it is, the report goes on
            return _Card(row, None)

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(rows, pool.map(load, rows.items()), strict=True))


def _manifest_folder(manifest: str | None) -> str | None:
    """Return the manifest's folder, as a path or URI without a slash at its end."""
    if not manifest:
        return None
    manifest = manifest.rstrip("/")
    try:
        filesystem, path = fsspec.core.url_to_fs(manifest)
        is_folder = filesystem.isdir(path)
        if not is_folder and not filesystem.exists(path):
            is_folder = not manifest.endswith((".parquet", ".pq"))
    except Exception:  # the page can do without
        is_folder = not manifest.endswith((".parquet", ".pq"))
    return manifest if is_folder else manifest.rpartition("/")[0] or "."


def _fetch(uri: str | None, folder: str | None) -> bytes:
    if not uri:
        raise ValueError("the row has no uri")
    if "://" not in uri and not uri.startswith("/"):
        if folder is None:
            raise ValueError("the manifest's folder is unknown")
        uri = f"{folder}/{uri}"
    with fsspec.open(uri, "rb") as file:
        data: bytes = file.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError("too large for a thumbnail")
    return data


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
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        here = [(row - start, index) for row, index in places if 0 <= row - start < group.num_rows]
        start += group.num_rows
        if not here or group.total_byte_size > 4 * _MAX_FILE_BYTES:
            continue
        column = file.read_row_group(number, columns=[IMAGE])[IMAGE]
        for row, index in here:
            value = column[row].as_py()
            data = value.get("bytes") if isinstance(value, dict) else value
            if data:
                yield index, data


def _thumbnail(data: bytes, width: int | None, height: int | None) -> tuple[str, int, int]:
    preprocess = None
    if width and height:
        shrink = min(1.0, _SIDE / max(width, height))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        preprocess = Preprocess(size, (0.0,) * 3, (1.0,) * 3, resize_mode="squash")
    image = Image.fromarray(decode_image(data, preprocess).pixels)
    image.thumbnail((_SIDE, _SIDE))
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=75)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/webp;base64,{encoded}", image.width, image.height


# Text ---------------------------------------------------------------------------------------------


def _clean(value: object) -> str:
    text = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(value).split()))
    return _QUERY.sub(r"\1?…", _USER_INFO.sub(r"\1…@", text))


def _text(value: object, limit: int = 400) -> str:
    """Return anything as HTML text or a quoted attribute: no secrets, no markup, not too long."""
    return html.escape(_middle(_clean(value), limit))


def _middle(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _name(row: Mapping[str, Any]) -> str:
    """Return what a person would call the row: its URI, or its place in the manifest."""
    return str(row[URI] or f"{row[MANIFEST_FILE]} row {row[MANIFEST_ROW]}")


def _short_name(row: Mapping[str, Any]) -> str:
    name = _clean(_name(row)).rstrip("/")
    return _middle(name.rpartition("/")[2] or name, 34)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else _NONE


def _value(value: object) -> str:
    """Return a value of the run's JSON files for people."""
    if value is None or value == "":
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or _NONE
    return str(value)


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in document.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{name}: ")
        else:
            yield name, None if value == {} else value


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = ""
) -> str:
    """Return a table from cells that are HTML already; the first of a row is its heading."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="{kind}"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


# The page -----------------------------------------------------------------------------------------


def _page(
    run: _Run, other: _Other | None, layout: _Layout, cards: Mapping[int, _Card], title: str
) -> str:
    sections = [
        ("scores", "Scores", _histograms(run)),
        ("drift", "Against another run", _drift(run, other, layout, cards)),
        ("extremes", "Best and worst", _extremes(run, layout, cards)),
        ("disputed", "Disputed between the pairs", _disputes(run, "pairs", layout, cards)),
        ("sheet", "From worst to best", _sheet(run, layout, cards)),
        ("columns", "Score and the manifest's columns", _columns(run)),
        ("failures", "Failures", _failures(run)),
        ("run", "The run", _run_facts(run)),
    ]
    present = [section for section in sections if section[2]]
    return _PAGE.substitute(
        title=_text(title),
        css=_CSS,
        tiles=_tiles(run),
        notice=_notice(run),
        links="".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in present),
        sections="".join(
            f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{name}</h2>'
            f"{body}</section>"
            for key, name, body in present
        ),
    )


def _tiles(run: _Run) -> str:
    rows, scored = len(run.ok), int(run.ok.sum())
    share = f" ({(rows - scored) / rows:.1%})" if rows > scored else ""
    rate = run.summary.get("images_per_second")
    facts = [
        ("Rows", f"{rows:,}"),
        ("Scored", f"{scored:,}"),
        ("Failed", f"{rows - scored:,}{share}"),
        ("Images per second", _value(rate) if isinstance(rate, int | float) else "unknown"),
        ("Model", _value(run.config.get("model") or "unknown")),
        ("Prompt pairs", _pair_set(run)),
    ]
    return "".join(
        f"<div><dt>{name}</dt><dd>{_text(value, 60)}</dd></div>" for name, value in facts
    )


def _pair_set(run: _Run) -> str:
    source = run.config.get("prompts") or run.config.get("pairs")
    return f"{_value(source) if source else 'unknown'} ({len(run.pairs)})"


def _notice(run: _Run) -> str:
    notes = []
    if not run.summary:
        notes.append(
            "The run's summary is missing, so the run may not be finished: this page shows the "
            "rows committed so far."
        )
    if not np.isfinite(run.score).any():
        notes.append("No row has a score. See the failures below.")
    return "".join(f'<p class="notice">{note}</p>' for note in notes)


# Histograms ---------------------------------------------------------------------------------------


def _histograms(run: _Run) -> str:
    finite = run.score[np.isfinite(run.score)]
    if not len(finite):
        return ""
    columns = {name: values[np.isfinite(values)] for name, values in run.pairs.items()}
    columns = {name: values for name, values in columns.items() if len(values)}
    overall = _histogram(finite, _axis(finite), "Score, mean over the pairs", _BINS, 190)
    if len(columns) < 2:
        return overall
    axis = _axis(
        np.concatenate([values[[values.argmin(), values.argmax()]] for values in columns.values()])
    )
    small = "".join(
        _histogram(values, axis, name, _PAIR_BINS, 80) for name, values in columns.items()
    )
    return (
        f'{overall}<h3>By prompt pair</h3><p class="note">All on the same scale, so that the pairs '
        f'can be compared.</p><div class="multiples">{small}</div>'
    )


def _axis(values: np.ndarray) -> np.ndarray:
    """Return 3 to 7 round ticks that hold all values."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-3:
        low, high = low - 0.005, high + 0.005
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.arange(first, last + 1) * step


def _histogram(values: np.ndarray, axis: np.ndarray, name: str, bins: int, height: int) -> str:
    """Return a figure; widths are percentages, so that text keeps its size on every screen."""
    low, high = float(axis[0]), float(axis[-1])
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    top = int(counts.max())
    digits = max(1, -math.floor(math.log10(axis[1] - axis[0]) + 1e-9))
    median = float(np.median(values))
    ticks = [axis[0], axis[-1]] if height < 100 else list(axis)
    parts = [f'<line class="rule" x1="0" x2="100%" y1="{height}" y2="{height}"/>']
    parts += [
        f'<rect x="{100 * i / bins:.3f}%" width="{100 / bins:.3f}%" '
        f'y="{height * (1 - count / top):.1f}" height="{height * count / top:.1f}">'
        f"<title>{_number(edges[i], digits + 2)} to {_number(edges[i + 1], digits + 2)}: "
        f"{_plural(int(count), 'image')}</title></rect>"
        for i, count in enumerate(counts)
        if count
    ]
    at = 100 * (median - low) / (high - low)
    parts.append(f'<line class="median" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="{height}"/>')
    parts += [_tick(float(tick), low, high, digits, height) for tick in ticks]
    parts.append(f'<text x="-6" y="10" text-anchor="end">{top:,}</text>')
    parts.append(f'<text x="-6" y="{height}" text-anchor="end">0</text>')
    if height > 100:
        parts.append(
            f'<text x="50%" y="{height + 36}" text-anchor="middle">score (bars: images)</text>'
        )
    described = (
        f"{_plural(len(values), 'image')}, from {_number(float(values.min()))} to "
        f"{_number(float(values.max()))}, median {_number(median)}"
    )
    return (
        f'<figure class="histogram"><figcaption><b>{_text(name)}</b> '
        f"<span>mean {_number(float(values.mean()))}, median {_number(median)}</span></figcaption>"
        f'<div class="plot"><svg role="img" height="{height + (44 if height > 100 else 22)}" '
        f'aria-label="Histogram of {_text(name)}: {described}">{"".join(parts)}</svg></div>'
        "</figure>"
    )


def _tick(value: float, low: float, high: float, digits: int, height: int) -> str:
    at = 100 * (value - low) / (high - low)
    return (
        f'<line class="rule" x1="{at:.2f}%" x2="{at:.2f}%" y1="{height}" y2="{height + 4}"/>'
        f'<text x="{at:.2f}%" y="{height + 17}" text-anchor="middle">'
        f"{_number(value, digits)}</text>"
    )


# Images -------------------------------------------------------------------------------------------


def _extremes(run: _Run, layout: _Layout, cards: Mapping[int, _Card]) -> str:
    if not layout.best:
        return ""
    return "".join(
        f'<h3>{name} {len(rows)}</h3><div class="cards">'
        + "".join(_figure(run, index, cards[index], choose) for index in rows)
        + "</div>"
        for name, rows, choose in (("Best", layout.best, max), ("Worst", layout.worst, min))
    )


def _disputes(run: _Run, section: str, layout: _Layout, cards: Mapping[int, _Card]) -> str:
    return "".join(
        f'<h3>{dispute.title}</h3><div class="cards">'
        + "".join(_figure(run, i, cards[i], told=told) for i, told in dispute.reasons.items())
        + "</div>"
        for dispute in layout.disputes
        if dispute.section == section
    )


def _drift(run: _Run, other: _Other | None, layout: _Layout, cards: Mapping[int, _Card]) -> str:
    if other is None:
        return ""
    found = other.found
    here, there = run.score[np.isfinite(run.score)], found.all_scores
    both = int(np.isfinite(found.here).sum())
    moved = int((np.abs(found.difference) > 0.1).sum())
    facts = [
        ("Compared with", _text(other.name)),
        ("Its model and pairs", _text(f"{_value(other.config.get('model'))}, {_pairs_of(other)}")),
        (f"Rows in both, by their {found.joined_by}", f"{found.rows:,}"),
        ("Rows only here, only there", f"{found.only_here:,}, {found.only_there:,}"),
        ("Scored in both", f"{both:,}"),
        ("Rank correlation (SRCC) of the two", _number(srcc(found.here, found.there))),
        ("Moved by more than a tenth of the ranks", _share(moved, both)),
    ]
    if len(here) and len(there):
        facts += [
            ("Mean score here, there", f"{_number(here.mean())}, {_number(there.mean())}"),
            ("Median here, there", f"{_number(np.median(here))}, {_number(np.median(there))}"),
            (
                "Largest gap of the two cumulative distributions",
                _number(_largest_gap(here, there)),
            ),
        ]
    parts = [_table("Drift", ("Fact", "Value"), facts, "facts")]
    if found.statuses:
        rows = [
            (f"<code>{_text(a)}</code>", f"<code>{_text(b)}</code>", f"{count:,}")
            for (a, b), count in list(found.statuses.items())[:_MAX_GROUPS]
        ]
        parts.append(_table("Rows of another status", ("Here", "There", "Rows"), rows, "numbers"))
    if len(here) and len(there):
        axis = _axis(np.concatenate([[here.min(), here.max()], [there.min(), there.max()]]))
        drawn = (("here", here), ("there", there))
        plots = [_histogram(values, axis, name, _BINS, 99) for name, values in drawn]
        parts.append(f'<div class="multiples">{"".join(plots)}</div>')
    return "".join(parts) + _disputes(run, "drift", layout, cards)


def _largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the statistic of Kolmogorov and Smirnov: 0 for the same distributions, at most 1."""
    values = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(one), values, "right") / len(one) for one in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _pairs_of(other: _Other) -> str:
    return _value(other.config.get("prompts") or other.config.get("pairs"))


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else _NONE


def _sheet(run: _Run, layout: _Layout, cards: Mapping[int, _Card]) -> str:
    if not layout.strips:
        return ""
    total = int(np.isfinite(run.score).sum())
    parts = f"{_plural(total, 'scored image')}, in {len(layout.strips)} equal parts by rank"
    strips = "".join(
        f'<div class="strip"><h3>{_strip_name(number, len(layout.strips))} <small>'
        f"{_number(strip.low)} to {_number(strip.high)}, {_plural(strip.count, 'image')}"
        '</small></h3><div class="cards">'
        + "".join(_figure(run, index, cards[index]) for index in strip.rows)
        + "</div></div>"
        for number, strip in enumerate(layout.strips, start=1)
    )
    return (
        f'<p class="note">{parts}; a few examples of each, evenly spaced. Point at an image for '
        f"its score by pair.</p>{strips}"
    )


def _strip_name(number: int, count: int) -> str:
    suffix = {1: " (worst)", count: " (best)"}.get(number, "") if count > 1 else ""
    return f"{number}{suffix}"


def _figure(
    run: _Run,
    index: int,
    card: _Card,
    choose: Callable[..., str] | None = None,
    told: str | None = None,
) -> str:
    pairs = {name: float(values[index]) for name, values in run.pairs.items()}
    pairs = {name: value for name, value in pairs.items() if math.isfinite(value)}
    # &#10; so that each pair has its own line in the tooltip
    tooltip = "&#10;".join(
        [_text(_name(card.row)), *(f"{_text(n, 80)}: {_number(v)}" for n, v in pairs.items())]
    )
    score = _number(float(run.score[index]))
    short = html.escape(_short_name(card.row))
    reason = "" if told is None else f'<span class="reason">{_text(told)}</span>'
    if choose is not None and len(pairs) > 1:
        name = choose(pairs, key=lambda name: pairs[name])
        word = "highest" if choose is max else "lowest"
        reason = f'<span class="reason">{word}: {_text(name, 40)} {_number(pairs[name])}</span>'
    return (
        f'<figure class="card" title="{tooltip}">{_picture(card, short, score)}<figcaption>'
        f'<b>{score}</b> <span class="name">{short}</span>{reason}</figcaption></figure>'
    )


def _picture(card: _Card, short: str, score: str) -> str:
    if card.thumbnail is None:
        return f'<div class="picture none"><span>no preview of {short}</span></div>'
    source, width, height = card.thumbnail
    return (
        f'<div class="picture"><img src="{source}" width="{width}" height="{height}" '
        f'alt="{short}, score {score}"></div>'
    )


# Kept columns -------------------------------------------------------------------------------------


def _columns(run: _Run) -> str:
    if not run.kept or not np.isfinite(run.score).any():
        return ""
    numbers = {n: _floats(c) for n, c in run.kept.items() if _is_number(c.type)}
    texts = {n: _groups(c) for n, c in run.kept.items() if not _is_number(c.type)}
    parts = [_correlations(run.score, numbers)]
    for name, groups in texts.items():
        level = next((n for n in numbers if _LEVEL.search(n)), None)
        if groups is not None and level is not None and _DISTORTION.search(name):
            parts.append(_by_level(run.score, name, groups, level, numbers[level]))
    parts += [
        f'<p class="note">Column {_text(name)}: more than {_MAX_GROUPS} values, not shown.</p>'
        if groups is None
        else _group_table(run.score, name, groups)
        for name, groups in texts.items()
    ]
    return "".join(parts)


def _groups(column: Any) -> dict[str, np.ndarray] | None:  # noqa: ANN401
    """Return value -> (N,) bool mask, null as its own group; None for too many values."""
    if not _is_text(column.type) or pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.string())
    elif pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    values = pc.unique(column).to_pylist()
    if len(values) > _MAX_GROUPS:
        return None
    codes = pc.fill_null(pc.index_in(column, pa.array(values, column.type)), -1).to_numpy()
    pairs = [("(null)" if v is None else str(v), codes == i) for i, v in enumerate(values)]
    return dict(sorted(pairs, key=lambda pair: pair[0]))


def _correlations(score: np.ndarray, numbers: Mapping[str, np.ndarray]) -> str:
    if not numbers:
        return ""
    rows = [
        (
            _text(name),
            f"{int((np.isfinite(values) & np.isfinite(score)).sum()):,}",
            _number(srcc(score, values)),
        )
        for name, values in numbers.items()
    ]
    caption = "Rank correlation (SRCC) of the score with each numeric column"
    return _table(caption, ("Column", "Images", "SRCC"), rows, "numbers")


def _group_table(score: np.ndarray, name: str, groups: Mapping[str, np.ndarray]) -> str:
    finite = score[np.isfinite(score)]
    axis = (float(finite.min()), float(finite.max()))
    rows = []
    for value, mask in groups.items():
        here = score[mask & np.isfinite(score)]
        if not len(here):
            rows.append((_text(value, 80), "0", _NONE, _NONE, ""))
            continue
        mean, median = float(here.mean()), float(np.median(here))
        cells = (_text(value, 80), f"{len(here):,}", _number(mean), _number(median))
        rows.append((*cells, _range_bar(here, mean, axis)))
    header = ("Value", "Images", "Mean", "Median", "Middle 80 % and mean")
    return _table(f"Score by {_text(name)}", header, rows, "numbers")


def _range_bar(values: np.ndarray, mean: float, axis: tuple[float, float]) -> str:
    low, high = (float(q) for q in np.quantile(values, (0.1, 0.9)))
    span = (axis[1] - axis[0]) or 1.0
    left, right, at = (100 * (v - axis[0]) / span for v in (low, high, mean))
    return (
        '<svg class="range" role="img" height="14" '
        f'aria-label="80 % between {_number(low)} and {_number(high)}">'
        f"<title>80 % between {_number(low)} and {_number(high)}, mean {_number(mean)}</title>"
        '<line class="rule" x1="0" x2="100%" y1="7" y2="7"/>'
        f'<rect x="{left:.1f}%" width="{max(right - left, 0.5):.1f}%" y="4" height="6" rx="3"/>'
        f'<circle cx="{at:.1f}%" cy="7" r="4.5"/></svg>'
    )


def _by_level(
    score: np.ndarray,
    name: str,
    groups: Mapping[str, np.ndarray],
    level_name: str,
    level: np.ndarray,
) -> str:
    found = np.unique(level[np.isfinite(level)])
    shown = found if len(found) <= _MAX_LEVELS else found[:0]
    rows = []
    for value, mask in groups.items():
        here = mask & np.isfinite(score)
        if not here.any():
            continue
        means = [score[here & (level == step)] for step in shown]
        cells = [_number(float(m.mean())) if len(m) else _NONE for m in means]
        agreement = srcc(score[here], level[here])
        rows.append((_text(value, 80), f"{int(here.sum()):,}", _number(agreement), *cells))
    steps = [f"Mean at {_text(level_name)} {step:g}" for step in shown]
    caption = (
        f"Rank correlation (SRCC) of the score with {_text(level_name)}, by {_text(name)}: "
        f"{_number(-1.0, 0)} if each step of distortion lowers the score"
    )
    return _table(caption, ("Value", "Images", "SRCC", *steps), rows, "numbers")


# Failures and facts -------------------------------------------------------------------------------


def _failures(run: _Run) -> str:
    failed = np.flatnonzero(~run.ok)
    if not len(failed):
        return (
            "<p>None: every row has a score.</p>" if len(run.ok) else "<p>The run has no rows.</p>"
        )
    kinds = run.status.take(pa.array(failed)).to_pylist()
    places: dict[str, list[int]] = {}
    for kind, index in zip(kinds, failed, strict=True):
        places.setdefault(str(kind), []).append(int(index))
    examples = _take(run, [i for rows in places.values() for i in rows[:_EXAMPLES]])
    table = [
        (
            f"<code>{_text(kind)}</code>",
            f"{len(rows):,}",
            f"<ul>{''.join(_example(examples[i]) for i in rows[:_EXAMPLES])}</ul>",
        )
        for kind, rows in sorted(places.items(), key=lambda item: -len(item[1]))
    ]
    caption = f"{len(failed):,} of {_plural(len(run.ok), 'row')} without a score, by kind"
    return _table(caption, ("Status", "Rows", f"Up to {_EXAMPLES} examples"), table, "failures")


def _example(row: Mapping[str, Any]) -> str:
    return (
        f"<li><bdi>{_text(_name(row), 120)}</bdi><br>"
        f'<span class="error">{_text(row["error"] or "no message", 300)}</span></li>'
    )


def _run_facts(run: _Run) -> str:
    facts = {k: v for k, v in run.summary.items() if k not in {"stage_seconds", "statuses"}}
    tables = [_stages(run.summary)]
    for caption, document in (("Summary", facts), ("Options", run.config)):
        rows = [(_text(key, 80), _text(_value(value))) for key, value in _flatten(document)]
        if rows:
            tables.append(_table(caption, ("Fact", "Value"), rows, "facts"))
        else:
            tables.append(f'<p class="note">{caption}: unknown, as the run left none.</p>')
    return "".join(tables)


def _stages(summary: Mapping[str, Any]) -> str:
    stages = summary.get("stage_seconds")
    if not isinstance(stages, dict):
        return ""
    times = {k: float(v) for k, v in stages.items() if isinstance(v, int | float)}
    total = sum(times.values())
    if not total > 0 or not math.isfinite(total):
        return ""
    rows = [
        (
            _text(name) + (' <strong class="mark">bottleneck</strong>' if slowest else ""),
            f"{seconds:,.2f}",
            f"{seconds / total:.0%}",
            '<svg class="range" height="14" aria-hidden="true"><rect '
            f'width="{100 * seconds / max(times.values()):.1f}%" y="3" height="8" rx="2"/></svg>',
        )
        for name, seconds in times.items()
        for slowest in [name == summary.get("bottleneck")]
    ]
    header = ("Stage", "Seconds", "Share", "Compared")
    return _table("Time by stage, summed over its workers", header, rows, "numbers")


# The frame ----------------------------------------------------------------------------------------

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>Each score is between 0 and 1, and higher means better: how much closer an image is to prompts
such as “a good photo” than to their opposites, averaged over the pairs. Scores order images; they
are not mean opinion scores (MOS).</p>
$notice
<dl class="tiles">$tiles</dl>
<nav aria-label="Sections"><ul>$links</ul></nav>
</header>
<main>$sections</main>
</body>
</html>
""")

_CSS = """
:root{--page:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#52606f;--line:#d5dbe2;--mark:#2563a8;
--accent:#b3450b;--notice:#fdf0dc;--bar:#9dbde0}
@media (prefers-color-scheme:dark){:root{--page:#10151b;--card:#19212a;--ink:#e8edf2;--soft:#a5b2c0;
--line:#35414e;--mark:#6fa8e5;--accent:#f0975b;--notice:#3a2d18;--bar:#3c6490}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
header,main{max-width:1180px;margin:0 auto;padding:0 16px}
h1{font-size:1.75rem;line-height:1.2;margin:28px 0 8px;overflow-wrap:anywhere}
header>p{max-width:72ch;margin:0 0 16px}
h2{font-size:1.25rem;margin:0 0 12px}
h3{font-size:1rem;margin:20px 0 8px}
h3 small{font-weight:400;color:var(--soft);font-size:.875rem;margin-left:6px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px;
margin:0 0 18px;min-width:0}
.note,.reason,.error,figcaption span{color:var(--soft)}
.note{margin:0 0 10px;font-size:.875rem}
.notice{background:var(--notice);border-left:4px solid var(--accent);padding:8px 12px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;
margin:0 0 12px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px}
dt{color:var(--soft);font-size:.8125rem}
dd{margin:0;font-size:1.25rem;font-weight:600;overflow-wrap:anywhere;line-height:1.3}
nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:0 0 16px}
a{color:var(--mark)}
figure{margin:0;min-width:0}
.histogram figcaption{display:flex;flex-wrap:wrap;gap:0 10px;margin-bottom:8px;font-size:.9375rem;
overflow-wrap:anywhere}
.histogram figcaption span{font-size:.8125rem;align-self:center}
.multiples figcaption{display:block}.multiples figcaption span{display:block}
.plot{padding:0 18px 0 46px}
svg{display:block;width:100%;overflow:visible}
svg text{fill:var(--soft);font-size:12px}
svg rect{fill:var(--mark)}
.plot rect{stroke:var(--card);stroke-width:1}
.plot rect:hover{fill:var(--accent)}
.rule{stroke:var(--line)}
.median{stroke:var(--accent);stroke-width:1.5;stroke-dasharray:4 3}
.multiples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));
gap:18px 14px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px}
.card{font-size:.8125rem;line-height:1.35}
.picture{height:130px;display:flex;align-items:center;justify-content:center;background:var(--page);
border:1px solid var(--line);border-radius:6px;overflow:hidden}
.picture img{max-width:100%;max-height:100%;width:auto;height:auto;object-fit:contain}
.none{padding:8px;text-align:center;color:var(--soft);overflow-wrap:anywhere;border-style:dashed}
.card figcaption{margin-top:4px;overflow-wrap:anywhere}
.reason{display:block}
.strip+.strip{border-top:1px solid var(--line)}
.scroll{overflow-x:auto;margin:0 0 18px}
.scroll:last-child{margin-bottom:0}
table{border-collapse:collapse;width:100%;font-size:.875rem}
caption{text-align:left;font-weight:600;padding-bottom:6px}
th,td{text-align:left;vertical-align:top;padding:6px 10px 6px 0;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom}
tbody th{font-weight:500;overflow-wrap:anywhere}
.numbers td{font-variant-numeric:tabular-nums;white-space:nowrap}
.numbers tbody th{min-width:84px}
.numbers svg{min-width:100px}
.range rect{fill:var(--bar)}
.range circle{fill:var(--mark)}
.facts th{width:16rem}
.facts td,.failures td{overflow-wrap:anywhere}
.failures ul{margin:0;padding-left:1.1em;min-width:170px}
.mark{color:var(--accent);font-size:.8125rem}
code{font-size:.8125rem;white-space:nowrap}
@media (max-width:600px){section{padding:14px 12px}.cards{grid-template-columns:repeat(3,1fr);
gap:10px 8px}.picture{height:96px}.card{font-size:.75rem}.tiles{grid-template-columns:1fr 1fr}
dd{font-size:1.0625rem}.facts th{width:42%}h1{font-size:1.5rem}}
@media print{:root{--page:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--mark:#2563a8;
--accent:#b3450b;--notice:#fff;--bar:#9dbde0}nav{display:none}section{border:0;padding:0}
.scroll{overflow:visible}figure,tr,.tiles div{break-inside:avoid}h2,h3{break-after:avoid}
svg rect,.picture{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
