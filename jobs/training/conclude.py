"""The end of `iqa train`: what was learned is measured, and written or not, with its page."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from iqa_core.clip.encoder import context_encoder
from iqa_core.columns import IMAGE_ID, MANIFEST_FILE, MANIFEST_ROW, URI
from iqa_core.errors import InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.pages.run.thumbnails import MAX_FILE_BYTES, thumbnail_of
from iqa_core.pages.training import Moved, TrainingFacts, training_page
from iqa_core.prompts.ensemble import PromptEnsemble, learned_prompts
from iqa_core.prompts.file import save_prompts
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.nearest_words import token_distance
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.tables.plan import PLAN, manifest_folder
from iqa_core.training.outcome import Outcome, conclude_training

from .run_folder import END, STARTS, tidy, write_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iqa_core.clip.encoder import Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.feature_cache import FeatureCache
    from iqa_core.training.data import TrainingData
    from iqa_core.training.state import State

    from .config import Config

__all__ = ["TrainingRun", "conclude"]

_MOVED = 12  # images on the page whose rank moved most, half of them up


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The parts of a training that do not change while the workers run.

    Attributes:
        config: The options.
        towers: The CLIP.
        ensemble: The contexts at their start.
        prompts: Features of the fixed base prompts.
        data: The rows.
        cache: The features that they are from, of the part files that are read.
        document: Everything that determines the result.
        folder: The run folder.
    """

    config: Config
    towers: Towers
    ensemble: PromptEnsemble
    prompts: PromptFeatures
    data: TrainingData
    cache: FeatureCache
    document: Mapping[str, Any]
    folder: Folder


def conclude(run: TrainingRun, state: State | None) -> None:
    """Measure the last contexts, write the prompt file, its page and the metrics, and print a summary.

    Args:
        run: The training.
        state: Its last state; None where no context was learned.

    Raises:
        InputError: If training diverged, or the output can't be written.
    """
    config, ensemble = run.config, run.ensemble
    moved = 1.0
    if state is not None:
        if state.ended == "diverged":
            tidy(run.folder, keep=())
            raise InputError(
                f"training diverged at step {state.step}: lower --learning-rate "
                f"({run.document['learning_rate']:g})"
            )
        moved = float((state.context - ensemble.context.detach().cpu()).abs().max())
        with torch.no_grad():
            ensemble.context.copy_(state.context)
    outcome = conclude_training(
        ensemble,
        run.towers,
        run.data,
        run.prompts,
        history=state.history if state else (),
        moved=moved,
        weigh_pairs=config.pair_weights or config.recipe == "weights",
    )
    is_learned = outcome.is_better or config.write == "learned" or config.recipe == "seed"
    starts = [run.folder.read_json(name) for name in run.folder.list(STARTS)]
    recovered = [start["step"] for start in starts[1:]]
    training = {
        **run.document,
        "steps_done": state.step if state else 0,
        "ended": state.ended if state else "weights",
        "recovered_at_steps": recovered,
        "written": "learned" if is_learned else "fixed",
        "trained_on": {"rows": run.data.rows, "bases": run.data.bases},
    }
    learned = learned_prompts(
        ensemble if is_learned else _fixed(run),
        run.towers,
        logit_scale=config.logit_scale,
        training=training,
        metrics=_metrics(run, outcome),
        weights=outcome.weights if is_learned else None,
    )
    if state is not None:
        write_metrics(run.folder, state)
    restarts = [
        f"Workers were lost or stopped; training continued from the checkpoint of step {step:,}."
        for step in recovered
    ]
    lines = [*_sentences(outcome, is_learned, bool(state)), *restarts]
    embedding = context_encoder(run.towers.text).token_embedding.weight
    page = training_page(
        TrainingFacts(
            title=f"Learned prompts: {Path(config.output).name}",
            history=state.history if state else [],
            teacher=outcome.fixed,
            student=outcome.learned,
            agreements=outcome.agreements,
            evidence=_evidence_rows(outcome),
            measure=outcome.evidence.measure if outcome.evidence else "",
            pairs=_pair_rows(run, outcome),
            moved=_moved(run, outcome),
            words=learned.nearest_words,
            word_scale=token_distance(embedding) if learned.nearest_words else math.nan,
            notices=lines,
            facts={key: value for key, value in training.items() if key != "pairs"},
        )
    )
    try:
        _write_beside(config.output, ".html", page.encode())
        save_prompts(config.output, learned)
    except OSError as error:
        raise InputError(
            f"--output {redact(config.output)} can't be written ({error_line(error)}); the training is "
            f"finished in {run.folder.uri}: the same command writes it once this is fixed"
        ) from error
    _print_summary(run, state, outcome, lines)


def _fixed(run: TrainingRun) -> PromptEnsemble:
    """Return the base prompts as they are, without context."""
    plain = PromptLearner(run.towers.text, run.ensemble.pairs, context_length=0)
    return PromptEnsemble([plain])


def _metrics(run: TrainingRun, outcome: Outcome) -> dict[str, Any]:
    return {
        "held_out_rows": run.data.held_out_rows,
        "teacher": {name: pair[0] for name, pair in outcome.agreements.items()},
        "student": {name: pair[1] for name, pair in outcome.agreements.items()},
        "evidence": asdict(outcome.evidence) if outcome.evidence else None,
        "is_better": outcome.is_better,
        "reason": outcome.reason,
        "findings": [asdict(finding) for finding in outcome.findings],
        "pairs": [asdict(pair) for pair in outcome.health],
        "between_pairs": {"fixed": outcome.between[0], "learned": outcome.between[1]},
        "trust": list(run.data.trust),
    }


def _sentences(outcome: Outcome, is_learned: bool, was_trained: bool) -> list[str]:
    """Return what was decided and why, and what is wrong."""
    what = "learned prompts" if was_trained else "weighted pairs"
    reason = outcome.reason if was_trained else outcome.reason.replace("learned prompts", what)
    if is_learned:
        decided = f"The {what} are written: "
        decided += reason if outcome.is_better else f"that was asked for, but {reason}"
    else:
        decided = f"Keep the fixed prompts; they are written: {reason}"
    found = [finding.text for finding in outcome.findings if finding.text not in reason]
    found += [outcome.doubt] if outcome.doubt and outcome.doubt not in reason else []
    return [f"{text[:1].upper()}{text[1:]}." for text in (decided, *found)]


def _evidence_rows(outcome: Outcome) -> list[tuple[str, float, float, float]]:
    evidence = outcome.evidence
    if evidence is None:
        return []
    rows = [("fixed prompts", evidence.fixed)]
    if len(evidence.each) > 1:
        rows += [(f"context {n}", one) for n, one in enumerate(evidence.each, start=1)]
    rows += [
        ("learned prompts, average", evidence.learned),
        ("learned less fixed", evidence.difference),
    ]
    return [(name, one.value, one.low, one.high) for name, one in rows]


def _pair_rows(run: TrainingRun, outcome: Outcome) -> list[tuple[str, float, float, float, float]]:
    """Name, agreement with its own fixed order, known order before and after, weight."""
    equal = 1 / len(outcome.health)
    return [
        (
            pair.name,
            pair.own,
            pair.known_fixed,
            pair.known_learned,
            equal if outcome.weights is None else float(outcome.weights[place]),
        )
        for place, pair in enumerate(outcome.health)
    ]


def _moved(run: TrainingRun, outcome: Outcome) -> list[Moved]:
    """Return the held-out images whose rank moved most."""
    before, after = (np.argsort(np.argsort(-x)) + 1 for x in (outcome.fixed, outcome.learned))
    order = np.argsort(after - before, kind="stable")
    half = min(_MOVED // 2, len(order) // 2)
    chosen = [*order[:half], *order[len(order) - half :]]
    places = run.data.held_out_places()
    rows = _rows(run, [int(places[place]) for place in chosen])
    folder = manifest_folder(run.cache.folder.read_json(PLAN))
    fetcher = Fetcher(folder or ".", timeout=10.0, retries=1, max_bytes=MAX_FILE_BYTES)
    return [
        Moved(
            str(
                row.get(URI)
                or row.get(IMAGE_ID)
                or f"row {row[MANIFEST_ROW]}, {row[MANIFEST_FILE]}"
            ),
            int(before[place]),
            int(after[place]),
            thumbnail_of(row.get(URI), fetcher, folder),
        )
        for place, row in zip(chosen, rows, strict=True)
        if before[place] != after[place]
    ]


def _rows(run: TrainingRun, places: Sequence[int]) -> list[dict[str, Any]]:
    """Return rows of the cache by their places in it, as far as a page needs them."""
    known = [name for name in (URI, IMAGE_ID) if name in run.cache.schema.names]
    wanted, start = set(places), 0
    found: dict[int, dict[str, Any]] = {}
    for table in run.cache.tables(known):
        for place in wanted & set(range(start, start + len(table))):
            found[place] = table.slice(place - start, 1).to_pylist()[0]
        start += len(table)
        if len(found) == len(wanted):
            break
    return [found[place] for place in places]


def _write_beside(output: str, suffix: str, content: bytes) -> None:
    path = output.removesuffix(".safetensors") + suffix
    parent, name = path.rpartition("/")[::2] if has_scheme(path) else os.path.split(path)
    Folder.of(parent or ".").write(name, content)


def _print_summary(
    run: TrainingRun, state: State | None, outcome: Outcome, lines: Sequence[str]
) -> None:
    steps = f"{state.step:,} steps; " if state else ""
    print(f"{steps}agreement on {run.data.held_out_rows:,} held-out rows:")
    for name, (teacher, student) in outcome.agreements.items():
        print(f"  {name}: fixed prompts {teacher:.4f}, learned prompts {student:.4f}")
    if outcome.evidence:
        for name, value, low, high in _evidence_rows(outcome):
            print(f"  {outcome.evidence.measure}, {name}: {value:.3f} [{low:.3f}, {high:.3f}]")
    if len(outcome.health) > 1:
        fixed, learned = outcome.between
        print(f"  correlation between pairs: fixed {fixed:.2f}, learned {learned:.2f}")
    if outcome.weights is not None:
        weighed = zip(outcome.health, outcome.weights, strict=True)
        print("  pair weights: " + ", ".join(f"{pair.name} {w:.2f}" for pair, w in weighed))
    for line in lines:
        print(f"  {line}")
    if state:
        peaks = run.folder.read_json(END)["peak_memory_mib"]
        print(f"  memory: {max(peaks):,.0f} MiB at most in a worker")
    output = run.config.output
    page = output.removesuffix(".safetensors") + ".html"
    print(f"{output}: for `iqa score --prompts`; curves in {page}")
