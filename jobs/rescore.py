"""Scoring from cached features: a matrix product, so it needs neither images nor a cluster."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.scoring.columns import score_columns
from iqa_core.tables.audit import audit, left_to_do
from iqa_core.tables.feature_cache import FeatureCache, features_of
from iqa_core.tables.output import Output
from iqa_core.tables.schema import ExtraColumn, output_schema, schema_with
from iqa_core.tables.sink import Sink, SinkWithColumns, write_tables

from .progress import Progress
from .scoring.driver import Outcome
from .scoring.run import as_json, conclude, conclude_unchanged, run_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqa_core.clip.load import Towers
    from iqa_core.scoring.scorer import PromptFeatures

    from .config import ImageConfig

__all__ = ["rescore"]

_ROWS_PER_PART = 200_000


def rescore(
    config: ImageConfig,
    features: str,
    prompts_of: Callable[[Towers], PromptFeatures],
    extra: Sequence[ExtraColumn] = (),
) -> int:
    """Score a feature cache; the same command again resumes.

    Args:
        config: The options; what concerns images is not used.
        features: ``--features``.
        prompts_of: Gives the prompt features of the towers that the cache was made with.
        extra: Further columns, computed from the finished rows.

    Returns:
        The exit status, as of :func:`jobs.scoring.run.run_images`.

    Raises:
        InputError: If the cache is incomplete, or was made by other weights.
    """
    if config.retry_errors:
        raise InputError(
            "--retry-errors needs the images, and --features has none: retry with `iqa embed`"
        )
    cache = FeatureCache(features)
    model = cache.fingerprint["model"]
    towers = load_towers(model)
    if towers.digest != cache.fingerprint["weights"]:
        raise InputError(
            f"--features {features} was made by --model {model} with the weights "
            f"{cache.fingerprint['weights'][:12]}, but it now has {towers.digest[:12]}: run "
            "`iqa embed` again"
        )
    prompts = prompts_of(towers)
    manifest = cache.manifest()
    keep = config.keep or tuple(cache.kept)
    schema = output_schema(manifest, keep, pairs=prompts.names)
    fingerprint = run_fingerprint("rescore", cache.tower, prompts, schema_with(schema, extra))
    output: Sink = Output(config.output, manifest, fingerprint, config.lease_seconds)
    if extra:
        output = SinkWithColumns(output, extra)
    if not left_to_do(manifest, output.committed()):
        print(f"nothing to do: all {manifest.rows:,} rows are in {redact(config.output)}")
        result = audit(manifest, output.committed().rows)  # read a moment ago
        return conclude_unchanged(output, result, config.max_error_rate)
    with output.start(as_json(replace(config, model=model))):
        rows = manifest.rows - len(output.committed().rows)
        print(f"{rows:,} rows to do from the features of {model}", flush=True)
        outcome = _score_parts(cache, output, prompts, schema, rows)
        if not audit(manifest, output.committed().rows).passed:
            print(f"--features {features} is not complete: run `iqa embed` again, and then this")
        return conclude(output, outcome, None, config.max_error_rate)


def _score_parts(
    cache: FeatureCache, output: Sink, prompts: PromptFeatures, schema: pa.Schema, rows: int
) -> Outcome:
    began = time.monotonic()
    progress = Progress(rows)
    before = output.committed().statuses.copy()
    columns = [name for name in schema.names if name in cache.schema.names]

    def scored() -> Iterator[pa.Table]:
        for table in cache.tables([*columns[2:], EMBEDDING], done=output.committed().rows):
            scores = score_columns(features_of(table), prompts)
            data = {name: scores.get(name) for name in schema.names}
            data |= {name: table.column(name) for name in columns if name not in scores}
            yield pa.table(data).cast(schema)

    def show_progress() -> None:
        progress.add(output.committed().statuses - before)
        progress.tick()

    write_tables(output, scored(), _ROWS_PER_PART, show_progress)
    done = output.committed().statuses - before
    progress.add(done)
    progress.close()
    seconds = time.monotonic() - began
    return Outcome(done.total(), dict(done), seconds, {"model": seconds}, None)
