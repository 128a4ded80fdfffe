"""Scoring from stored features: a matrix product, which needs neither images nor Ray."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.clip.embedded import lightest_towers
from iqa_core.clip.facts import ModelFacts, known_facts, remember_facts
from iqa_core.columns import CONTENT_HASH, DESCRIPTOR, IDENTITY, OWN_NAMES
from iqa_core.errors import InputError, Status
from iqa_core.tables.audit import audit, left_to_do
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.tables.output import Output
from iqa_core.tables.read_ahead import available_cpus, in_order
from iqa_core.tables.schema import ExtraColumn, check_extra, output_schema, schema_with
from iqa_core.tables.sink import SinkWithColumns, write_tables

from ..progress import Progress
from .allocator import keep_freed_memory
from .conclude import conclude, conclude_without_work, options_as_json
from .features import open_features
from .fingerprint import fingerprint_of_run
from .outcome import Outcome
from .prompts import read_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.clip.encoder import Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.audit import Committed
    from iqa_core.tables.feature_source import FeatureBlock, FeatureSource
    from iqa_core.tables.manifest import Manifest
    from iqa_core.tables.rows import RowSet
    from iqa_core.tables.sink import OpenSink, Sink

    from ..config import RescoreOptions

__all__ = ["rescore", "scored_tables"]

_ROWS_PER_PART = 200_000
#: Threads that read and score; each holds up to about 100 MB.
_MOST_WORKERS = 10


def rescore(
    config: RescoreOptions,
    *,
    extra: Sequence[ExtraColumn] = (),
    open_sink: OpenSink = Output,
) -> int:
    """Score stored features; the same command again resumes, and takes up repaired features.

    Args:
        config: The options.
        extra: Extra columns, computed from the finished rows.
        open_sink: Opens the place of the rows; by default part files in a folder.

    Returns:
        The exit status, as of :func:`jobs.scoring.run.run_images`.

    Raises:
        InputError: If they are incomplete, or were made by other weights.
    """
    texts = read_prompts(config)
    cache = open_features(config)
    manifest = cache.manifest()
    keep = config.keep or tuple(cache.kept)
    if lacking := [name for name in keep if name not in {*cache.kept, *OWN_NAMES}]:
        raise InputError(
            argument="keep",
            value=lacking[0],
            limit=f"a column that the features carry ({', '.join(cache.kept) or 'they carry none'})",
            fix="name one of these",
        )
    carried = _carried(cache, manifest)

    def open_output(model: ModelFacts) -> tuple[Sink, pa.Schema]:
        cache.check_model(model.digest, model.width)
        prompts = texts.identity(model)
        tower = cache.tower_of(model.digest, model.quick_gelu)
        schema = output_schema(
            manifest,
            keep,
            pairs=prompts.names,
            hashes=CONTENT_HASH in carried,
            descriptors=DESCRIPTOR in carried,
        )
        columns = schema_with(schema, extra)
        fingerprint = fingerprint_of_run("rescore", tower, prompts, columns)
        check_extra(extra, fingerprint)
        sink = open_sink(config.output, manifest, fingerprint, config.lease_seconds)
        return (SinkWithColumns(sink, extra) if extra else sink), schema

    name = cache.model
    towers = None
    facts = known_facts(name, "model")
    if facts is None:
        towers = _load(name)
        facts = ModelFacts.of(towers)
    output, schema = open_output(facts)
    again = _to_score_again(cache, output.committed())
    if not left_to_do(manifest, output.committed(), again):
        return conclude_without_work(output, manifest, config)
    towers = towers or _load(name)
    if ModelFacts.of(towers) != facts:  # what was remembered is wrong: the loaded model counts
        output, schema = open_output(ModelFacts.of(towers))
    prompts = texts.features(towers)
    if config.check_images is not None:
        from .canary import check_images

        print(check_images(config.check_images, cache, towers), flush=True)
    model_name = towers.name
    del towers  # the features need no tower
    options = options_as_json(config) | {"model": name}
    with output.start(options):
        output.drop(again)
        rows = manifest.rows - len(output.committed().rows)
        print(f"{rows:,} rows to do from the features of {model_name}", flush=True)
        outcome = _score_parts(cache, output, prompts, schema, rows)
        if isinstance(cache, FeatureCache) and not audit(manifest, output.committed().rows).passed:
            print(
                f"--features {config.features} is not complete: run `iqa embed` again, and then this"
            )
        return conclude(output, outcome, None, config.max_error_rate)


def _carried(cache: FeatureSource, manifest: Manifest) -> set[str]:
    """Return which columns on the content of images the output takes from the features.

    Not a column that a user kept before its name became one of ours.
    """
    ours = output_schema(manifest, (), hashes=True, descriptors=True)
    found = {name for name in (CONTENT_HASH, DESCRIPTOR) if name in cache.schema.names}
    foreign = {name for name in found if cache.schema.field(name).type != ours.field(name).type}
    for name in sorted(foreign):
        print(f"--features: column {name} is not of `iqa embed`, and is left out", file=sys.stderr)
    return found - foreign


def _to_score_again(cache: FeatureSource, committed: Committed) -> tuple[str, ...]:
    """Return the statuses of rows to score again, as `iqa embed --retry-errors` has repaired features.

    These are all that are not ``ok`` if the output has more such rows than the features have among the
    same rows: which ones, a sink does not tell. Rows whose features give no score are among them then.
    """
    failed = tuple(status for status in committed.statuses if status != Status.OK)
    count = sum(committed.statuses[status] for status in failed)
    if not count or not isinstance(cache, FeatureCache):
        return ()
    still = cache.failed_rows()
    if still is None:
        return ()
    repaired = count - sum(
        rows.intersection_cardinality(committed.rows.rows(file)) for file, rows in still.bitmaps()
    )
    if repaired <= 0:
        return ()
    print(f"{repaired:,} rows that had failed are ok in --features: scored again", flush=True)
    return failed


def _load(name: str) -> Towers:
    towers = lightest_towers(name, "model")
    remember_facts(towers, "model")
    return towers


def scored_tables(
    cache: FeatureSource, prompts: PromptFeatures, schema: pa.Schema, done: RowSet, workers: int
) -> Iterator[pa.Table]:
    """Yield the scored rows of stored features, in their order; the process keeps the memory of a block.

    Args:
        cache: The features.
        prompts: P pairs.
        schema: The output's columns.
        done: Rows to leave out.
        workers: Threads that read and score ahead.

    Raises:
        InputError: If the features can't be read.
    """
    from iqa_core.scoring.columns import score_columns  # torch: a run with nothing to do needs none

    keep_freed_memory()
    stored = [name for name in schema.names if name in cache.schema.names]
    further = [name for name in stored if name not in IDENTITY]

    def score(read: Callable[[], FeatureBlock]) -> pa.Table:
        block = read()
        columns = score_columns(block.features, prompts)
        columns |= {name: block.rows.column(name) for name in stored if name not in columns}
        return pa.table({name: columns[name] for name in schema.names}).cast(schema)

    blocks = cache.blocks(further, done if len(done) else None)
    yield from in_order((partial(score, read) for read in blocks), workers)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep torch from starting threads of its own beside those that read and score."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _score_parts(
    cache: FeatureSource, output: Sink, prompts: PromptFeatures, schema: pa.Schema, rows: int
) -> Outcome:
    began = time.monotonic()
    progress = Progress(rows)
    before = output.committed().statuses.copy()

    def show_progress() -> None:
        progress.add(output.committed().statuses - before)
        progress.tick()

    workers = min(_MOST_WORKERS, available_cpus())
    with _one_torch_thread():
        tables = scored_tables(cache, prompts, schema, output.committed().rows, workers)
        write_tables(output, tables, _ROWS_PER_PART, show_progress)
    done = output.committed().statuses - before
    progress.add(done)
    progress.close()
    seconds = time.monotonic() - began
    return Outcome(done.total(), dict(done), seconds, {"model": seconds}, None)
