"""Reads a run: its part files without their long columns, and its files in ``_run/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from iqa_core.columns import (
    HEIGHT,
    IDENTITY,
    IMAGE_ID,
    OWN_NAMES,
    URI,
    WIDTH,
    Reader,
    required_by,
)
from iqa_core.errors import InputError, Status
from iqa_core.pages.drift import RunDispute, compare_runs
from iqa_core.pages.run.documents import (
    Summaries,
    manifest_files,
    planned_rows,
    read_document,
    read_summaries,
)
from iqa_core.redaction import error_line
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import read_committed
from iqa_core.tables.parts import PartFiles
from iqa_core.tables.rows import RowSet

__all__ = [
    "DEFAULT_SAMPLE",
    "Other",
    "Run",
    "floats",
    "is_number",
    "is_text",
    "load_other",
    "load_run",
    "take",
]

_REQUIRED = required_by(Reader.REPORT)

#: Rows above which statistics are made from a sample.
DEFAULT_SAMPLE = 1_000_000
_EXTREMES = 50  # best, worst, and failed rows of each kind that are always in the sample


@dataclass(frozen=True, eq=False)
class Run:
    """A run without its long columns, which are read for the shown rows only.

    Above ``DEFAULT_SAMPLE`` rows the K rows held are a random sample, the best and the worst
    scored rows and some failures of each kind; below, they are all.

    Attributes:
        parts: The part files.
        dataset: Their rows.
        total: Rows of the run.
        counts: Status -> rows of the run.
        place: (K,) int64, number of each held row in the dataset, ascending.
        ok: (K,) bool.
        score: (K,) float64, NaN where there is no score.
        status: (K,) pyarrow.ChunkedArray.
        pairs: Name -> (K,) float64, NaN where there is no score.
        kept: Name -> (K,) pyarrow.ChunkedArray, of the kept columns that can be described.
        config: The run's options, empty if unknown.
        summaries: The run's summary, or those of its shards.
        manifest: The manifest that was scored, if known.
        planned: Rows of that manifest, if known.
        files: Name and size of the manifest's files; empty if unknown.
    """

    parts: PartFiles
    dataset: Any
    total: int
    counts: dict[str, int]
    place: np.ndarray
    ok: np.ndarray
    score: np.ndarray
    status: Any
    pairs: dict[str, np.ndarray]
    kept: dict[str, Any]
    config: dict[str, Any]
    summaries: Summaries
    manifest: str | None
    planned: int | None
    files: list[tuple[str, int]]

    @property
    def scored(self) -> int:
        """Rows of the run with status ``ok``."""
        return self.counts.get(Status.OK.value, 0)

    @property
    def sampled(self) -> bool:
        """Whether the held rows are fewer than the run's."""
        return len(self.place) < self.total


@dataclass(frozen=True, eq=False)
class Other:
    """The run to compare with, aligned with the held rows.

    The numbers of rows in both and in one only are of all rows, unless a sample is joined by URI: then
    they are of the sample.
    """

    name: str
    config: dict[str, Any]
    dispute: RunDispute


def load_run(scores: str, sample: int = DEFAULT_SAMPLE) -> Run:
    """Read a run.

    Args:
        scores: Its output folder.
        sample: Rows to hold of a larger run.

    Raises:
        InputError: If it holds no readable part file.
    """
    folder = Folder.given(scores, "scores")
    parts, dataset = _open_parts(folder, "scores")
    kept = [field.name for field in dataset.schema if _is_described(field)]
    columns = ["status", "score", "scores", *kept]
    with _file_named(parts, columns):
        total = dataset.count_rows()
        place, counts = _choose_rows(dataset, total, sample)
        table = _read(dataset, columns, place, total)
    ok = np.asarray(table["status"].to_pandas() == Status.OK.value, dtype=bool)
    plan = read_document(folder, "_run/plan.json")
    manifest = plan.get("manifest")
    return Run(
        parts=parts,
        dataset=dataset,
        total=total,
        counts=counts,
        place=place,
        ok=ok,
        score=np.where(ok, floats(table["score"]), np.nan),
        status=table["status"],
        pairs={
            field.name: np.where(ok, floats(pc.struct_field(table["scores"], [i])), np.nan)
            for i, field in enumerate(table["scores"].type)
        },
        kept={name: table[name] for name in kept},
        config=read_document(folder, "_run/config.json"),
        summaries=read_summaries(folder),
        manifest=manifest if isinstance(manifest, str) else None,
        planned=planned_rows(plan),
        files=manifest_files(plan),
    )


def _choose_rows(dataset: Any, total: int, sample: int) -> tuple[np.ndarray, dict[str, int]]:  # noqa: ANN401
    """Return the rows to hold, ascending, and the rows of the run by status."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[int]] = {}
    score = np.full(total if total > sample else 0, np.nan, np.float32)
    start = 0
    columns = ["status", "score"] if total > sample else ["status"]
    for batch in dataset.to_batches(columns=columns):
        here = {v["values"]: v["counts"] for v in pc.value_counts(batch["status"]).to_pylist()}
        counts.update({str(status): count for status, count in here.items()})
        if total > sample:
            ok = pc.fill_null(pc.equal(batch["status"], Status.OK.value), False)
            values = np.where(ok.to_numpy(zero_copy_only=False), floats(batch["score"]), np.nan)
            score[start : start + len(batch)] = values
            for status in here:
                found = examples.setdefault(str(status), [])
                if len(found) < _EXTREMES:
                    rows = np.flatnonzero(pc.equal(batch["status"], status).to_numpy(False))
                    found += [start + int(i) for i in rows[: _EXTREMES - len(found)]]
        start += len(batch)
    if total <= sample:
        return np.arange(total), dict(counts)
    # one row of each of equally long stretches: random, ascending, and never twice
    chance = np.random.default_rng(0).random(sample)
    drawn = ((np.arange(sample) + chance) * (total / sample)).astype(np.int64)
    lowest, highest = (_lowest(sign * score) for sign in (1, -1))
    failed = [row for status, rows in examples.items() if status != Status.OK for row in rows]
    return np.unique(np.concatenate([drawn, lowest, highest, np.array(failed, int)])), dict(counts)


def _lowest(score: np.ndarray) -> np.ndarray:
    """Return the places of the lowest scores; they are in no order."""
    order = np.argpartition(score, min(_EXTREMES, len(score) - 1))  # NaN last
    first = order[:_EXTREMES]
    return np.asarray(first[np.isfinite(score[first])])


def _read(dataset: Any, columns: Sequence[str], place: np.ndarray, total: int) -> pa.Table:  # noqa: ANN401
    """Return some columns of the held rows; batch by batch, so that no more is in memory."""
    columns = list(columns)
    if len(place) == total:
        return dataset.to_table(columns=columns)
    tables = []
    start = 0
    for batch in dataset.to_batches(columns=columns):
        first, last = np.searchsorted(place, (start, start + len(batch)))
        tables.append(pa.Table.from_batches([batch]).take(pa.array(place[first:last] - start)))
        start += len(batch)
    return pa.concat_tables(tables)


def take(run: Run, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return held rows by number, with the long columns.

    Raises:
        InputError: If a part file can't be read.
    """
    names = run.dataset.schema.names
    columns = [name for name in (*_REQUIRED, IMAGE_ID, WIDTH, HEIGHT) if name in names]
    if not rows:
        return {}
    ascending = sorted(rows)
    with _file_named(run.parts, columns):
        table = _read(run.dataset, columns, run.place[ascending], run.total)
    return dict(zip(ascending, table.to_pylist(), strict=True))


def load_other(run: Run, compare: str) -> Other:
    """Read another run, and align it with the held rows of this one.

    Raises:
        InputError: If it holds no readable part file.
    """
    folder = Folder.given(compare, "compare")
    parts, dataset = _open_parts(folder, "compare")
    files = manifest_files(read_document(folder, "_run/plan.json"))
    same = bool(files) and files == run.files
    columns = [*(IDENTITY if same else [URI]), "status", "score"]
    with _file_named(run.parts, columns):
        here = _read(run.dataset, columns, run.place, run.total)
    with _file_named(parts, columns):
        # of a sample, only the rows that join: far fewer than all
        if not run.sampled:
            there = dataset.to_table(columns=columns)
        elif same:
            there = _read_rows(dataset, columns, RowSet.of(here))
        else:
            wanted = ds.field(URI).isin(pc.unique(here[URI]).drop_null())
            there = dataset.to_table(columns=columns, filter=wanted)
    dispute = compare_runs(here, there, same_manifest=same)
    if run.sampled and same:
        dispute = _with_counts(dispute, read_committed(run.parts).rows, read_committed(parts).rows)
    return Other(compare, read_document(folder, "_run/config.json"), dispute)


def _read_rows(dataset: Any, columns: Sequence[str], rows: RowSet) -> pa.Table:  # noqa: ANN401
    """Return some columns of the rows of a set, as far as they are there."""
    tables = [dataset.schema.empty_table().select(columns)]
    for batch in dataset.to_batches(columns=columns):
        table = pa.Table.from_batches([batch])
        tables.append(table.filter(pc.invert(rows.missing(table))))
    return pa.concat_tables(tables)


def _with_counts(dispute: RunDispute, here: RowSet, there: RowSet) -> RunDispute:
    """Return a dispute of a sample with the numbers of all rows of two runs of one manifest."""
    both = sum(rows.intersection_cardinality(there.rows(file)) for file, rows in here.bitmaps())
    only_here, only_there = len(here) - both, len(there) - both
    return replace(dispute, rows=both, only_here=only_here, only_there=only_there)


def _open_parts(folder: Folder, option: str) -> tuple[PartFiles, Any]:
    scores = folder.uri
    parts = PartFiles(folder, f"--{option} {scores}", "score again, or restore it")
    try:
        names = parts.names()
    except OSError as error:
        raise _unreadable(parts, error) from error
    if not names:
        raise InputError(
            f"--{option} {scores} holds no part-*.parquet: give the --output directory of a scoring "
            "run"
        )
    dataset = parts.dataset(names)
    absent = [name for name in _REQUIRED if name not in dataset.schema.names]
    if absent or not pa.types.is_struct(dataset.schema.field("scores").type):
        raise InputError(
            f"--{option} {scores} has part files without the column {(absent or ['scores'])[0]!r} "
            "of scored rows: give the --output directory of a scoring run"
        )
    return parts, dataset


@contextmanager
def _file_named(parts: PartFiles, columns: Sequence[str]) -> Iterator[None]:
    """Raise a failure to read some columns of all part files as an InputError that names the file."""
    try:
        yield
    except MemoryError:  # also Arrow's; it is no damage
        raise
    except (pa.ArrowException, OSError) as error:
        parts.check(parts.names(), columns)
        raise _unreadable(parts, error) from error


def _unreadable(parts: PartFiles, error: Exception) -> InputError:
    return InputError(f"{parts.shown} can't be read: {error_line(error)}: {parts.fix}")


def is_number(kind: Any) -> bool:  # noqa: ANN401
    """Return whether an Arrow type is a number."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def is_text(kind: Any) -> bool:  # noqa: ANN401
    """Return whether values of an Arrow type are shown as they are: text, or true and false."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    )


def _is_described(field: Any) -> bool:  # noqa: ANN401
    return field.name not in OWN_NAMES and (is_number(field.type) or is_text(field.type))


def floats(column: Any) -> np.ndarray:  # noqa: ANN401
    """Return a numeric Arrow column as (N,) float64, null as NaN."""
    values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)
