"""Scoring from cached features: a matrix product, so it needs neither images nor a cluster."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.redaction import redact
from iqa_core.tables.feature_cache import EMBEDDING, FeatureCache, features_of, score_columns
from iqa_core.tables.output import Output, audit, output_schema

from .progress import Progress
from .scoring.driver import Outcome
from .scoring.run import as_json, conclude, conclude_unchanged, run_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqa_core.clip.encoder import Towers
    from iqa_core.scoring.features import PromptFeatures

    from .config import ImageConfig

__all__ = ["rescore"]

_ROWS_PER_PART = 200_000


def rescore(
    config: ImageConfig, features: str, prompts_of: Callable[[Towers], PromptFeatures]
) -> int:
    """Score a feature cache; the same command again resumes.

    Args:
        config: The options; what concerns images is not used.
        features: ``--features``.
        prompts_of: Gives the prompt features of the towers that the cache was made with.

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
    fingerprint = run_fingerprint("rescore", cache.tower, prompts, schema)
    output = Output(config.output, manifest, fingerprint)
    if not output.left_to_do():
        print(f"nothing to do: all {manifest.rows:,} rows are in {redact(config.output)}")
        result = audit(manifest, output.committed.rows)  # read a moment ago
        return conclude_unchanged(output, result, config.max_error_rate)
    with output.writing(as_json(replace(config, model=model)), config.lease_seconds):
        rows = manifest.rows - len(output.committed.rows)
        print(f"{rows:,} rows to do from the features of {model}", flush=True)
        outcome = _score_parts(cache, output, prompts, schema, rows)
        if not audit(manifest, output.committed.rows).passed:
            print(f"--features {features} is not complete: run `iqa embed` again, and then this")
        return conclude(output, outcome, None, config.max_error_rate)


def _score_parts(
    cache: FeatureCache, output: Output, prompts: PromptFeatures, schema: pa.Schema, rows: int
) -> Outcome:
    began = time.monotonic()
    progress = Progress(rows)
    before = output.committed.statuses.copy()
    pending: list[pa.Table] = []

    def commit() -> None:
        if pending:
            output.commit(pa.concat_tables(pending))
            pending.clear()

    columns = [name for name in schema.names if name in cache.schema.names]
    for table in cache.tables([*columns[2:], EMBEDDING], done=output.committed.rows):
        scored = score_columns(features_of(table), prompts)
        data = {name: scored.get(name, None) for name in schema.names}
        data |= {name: table.column(name) for name in columns if name not in scored}
        pending.append(pa.table(data).cast(schema))
        if sum(map(len, pending)) >= _ROWS_PER_PART:
            commit()
        progress.add(output.committed.statuses - before)
        progress.tick()
    commit()
    done = output.committed.statuses - before
    progress.add(done)
    progress.close()
    seconds = time.monotonic() - began
    return Outcome(done.total(), dict(done), seconds, {"model": seconds}, None)
