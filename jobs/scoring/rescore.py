"""Scoring from cached features: a matrix product, which needs neither images nor Ray."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.clip.facts import ModelFacts, known_facts, remember_facts
from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING
from iqa_core.tables.audit import audit, left_to_do
from iqa_core.tables.feature_cache import FeatureCache, features_of
from iqa_core.tables.output import Output
from iqa_core.tables.schema import ExtraColumn, output_schema, schema_with
from iqa_core.tables.sink import SinkWithColumns, write_tables

from ..progress import Progress
from .conclude import conclude, conclude_without_work, options_as_json
from .fingerprint import fingerprint_of_run
from .outcome import Outcome
from .prompts import read_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.clip.encoder import Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.sink import OpenSink, Sink

    from ..config import RescoreOptions

__all__ = ["rescore"]

_ROWS_PER_PART = 200_000


def rescore(
    config: RescoreOptions,
    *,
    extra: Sequence[ExtraColumn] = (),
    open_sink: OpenSink = Output,
) -> int:
    """Score a feature cache; the same command again resumes.

    Args:
        config: The options.
        extra: Extra columns, computed from the finished rows.
        open_sink: Opens the place of the rows; by default part files in a folder.

    Returns:
        The exit status, as of :func:`jobs.scoring.run.run_images`.

    Raises:
        InputError: If the cache is incomplete, or was made by other weights.
    """
    texts = read_prompts(config)
    cache = FeatureCache(config.features)
    manifest = cache.manifest()
    keep = config.keep or tuple(cache.kept)

    def open_output(model: ModelFacts) -> tuple[Sink, pa.Schema]:
        cache.check_weights(model.digest)
        prompts = texts.identity(model)
        schema = output_schema(manifest, keep, pairs=prompts.names)
        columns = schema_with(schema, extra)
        fingerprint = fingerprint_of_run("rescore", cache.tower, prompts, columns)
        sink = open_sink(config.output, manifest, fingerprint, config.lease_seconds)
        return (SinkWithColumns(sink, extra) if extra else sink), schema

    name = cache.fingerprint["model"]
    towers = None
    facts = known_facts(name, "model")
    if facts is None:
        towers = _load(name)
        facts = ModelFacts.of(towers)
    output, schema = open_output(facts)
    if not left_to_do(manifest, output.committed()):
        return conclude_without_work(output, manifest, config)
    towers = towers or _load(name)
    if ModelFacts.of(towers) != facts:  # what was remembered is wrong: the loaded model counts
        output, schema = open_output(ModelFacts.of(towers))
    prompts = texts.features(towers)
    options = options_as_json(config) | {"model": name}
    with output.start(options):
        rows = manifest.rows - len(output.committed().rows)
        print(f"{rows:,} rows to do from the features of {towers.name}", flush=True)
        outcome = _score_parts(cache, output, prompts, schema, rows)
        if not audit(manifest, output.committed().rows).passed:
            print(
                f"--features {config.features} is not complete: run `iqa embed` again, and then this"
            )
        return conclude(output, outcome, None, config.max_error_rate)


def _load(name: str) -> Towers:
    towers = load_towers(name)
    remember_facts(towers, "model")
    return towers


def _score_parts(
    cache: FeatureCache, output: Sink, prompts: PromptFeatures, schema: pa.Schema, rows: int
) -> Outcome:
    from iqa_core.scoring.columns import score_columns  # imports torch

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
