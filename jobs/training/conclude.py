"""The end of `iqa train`: agreement of fixed and learned prompts, advice, the prompt file, its page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from iqa_core.clip.encoder import context_encoder
from iqa_core.errors import InputError
from iqa_core.evaluation.correlations import srcc
from iqa_core.pages.training import TrainingFacts, training_page
from iqa_core.prompts.file import save_prompts
from iqa_core.prompts.learner import learned_prompts
from iqa_core.scoring.margins import image_scores_f64
from iqa_core.scoring.margins import margins as fixed_margins
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.training.check import agreement, held_out_margins
from iqa_core.training.data import Rows
from iqa_core.training.known_order import known_order_agreement

from .run_folder import STARTS, tidy, write_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqa_core.clip.encoder import Towers
    from iqa_core.prompts.file import LearnedPrompts
    from iqa_core.prompts.learner import PromptLearner
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.training.data import TrainingData
    from iqa_core.training.state import State

    from .config import Config

__all__ = ["TrainingRun", "advice", "conclude"]

_VIEWED_ROWS = 512  # held-out rows whose copies are compared at the end

#: Reference -> agreement of the fixed and of the learned prompts with it.
Agreements = dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The parts of a training that do not change while the workers run.

    Attributes:
        config: The options.
        towers: The CLIP.
        learner: The prompt learner.
        prompts: Features of the fixed base prompts.
        data: The rows.
        document: Everything that determines the result.
        folder: The run folder.
    """

    config: Config
    towers: Towers
    learner: PromptLearner
    prompts: PromptFeatures
    data: TrainingData
    document: Mapping[str, Any]
    folder: Folder


def conclude(run: TrainingRun, state: State) -> None:
    """Measure the best context, write the prompt file, its page and the metrics, and print a summary.

    Raises:
        InputError: If training diverged at once.
    """
    config, data = run.config, run.data
    if state.ended == "diverged" and not state.best_step:
        tidy(run.folder, keep=())
        raise InputError(
            f"training diverged at step {state.step}: lower --learning-rate "
            f"({config.learning_rate:g})"
        )
    with torch.no_grad():
        run.learner.context.copy_(state.best_context)
    fixed, student, agreements = _measure(run)
    starts = [run.folder.read_json(name) for name in run.folder.list(STARTS)]
    recovered = [start["step"] for start in starts[1:]]
    training = {
        **run.document,
        "steps_done": state.step,
        "best_step": state.best_step,
        "ended": state.ended,
        "recovered_at_steps": recovered,
    }
    learned = learned_prompts(
        run.learner,
        run.towers,
        logit_scale=config.logit_scale,
        training=training,
        metrics={
            "held_out_rows": data.held_out_rows,
            "teacher": {name: pair[0] for name, pair in agreements.items()},
            "student": {name: pair[1] for name, pair in agreements.items()},
            "agreement": {"start": state.history[0]["agreement"], "best": state.best},
            "trust": list(data.trust),
        },
    )
    write_metrics(run.folder, state)
    restarts = [
        f"Workers were lost or stopped; training continued from the checkpoint of step {step:,}."
        for step in recovered
    ]
    page = training_page(
        TrainingFacts(
            title=f"Learned prompts: {Path(config.output).name}",
            history=state.history,
            best_step=state.best_step,
            teacher=fixed,
            student=student,
            agreements=agreements,
            words=learned.nearest_words,
            notices=[*restarts, *filter(None, [advice(agreements)])],
            facts={key: value for key, value in training.items() if key != "pairs"},
        )
    )
    _write_beside(config.output, ".html", page.encode())
    save_prompts(config.output, learned)
    _print_summary(run, state, agreements, learned, restarts)


def _measure(run: TrainingRun) -> tuple[np.ndarray, np.ndarray, Agreements]:
    """Return the held-out rows' scores by fixed and by learned prompts, and both's agreements."""
    data, scale = run.data, run.prompts.logit_scale
    rows, (fixed, watched) = data.held_out(), data.held_out_references()
    margins = held_out_margins(run.learner, context_encoder(run.towers.text), rows.features, scale)
    student = image_scores_f64(margins)[:, 0].numpy()
    # Per pair, a teacher agrees with itself; in the ensemble its pairs are weighted by their trust.
    own = 1.0 if data.per_pair else srcc(fixed, rows.targets[:, 0])
    reached = agreement(margins, rows.targets, per_pair=data.per_pair)
    agreements = {f"srcc {data.teacher}": (own, reached)}
    for place, name in enumerate(data.watched):
        column = watched[:, place]
        agreements[f"srcc {name}"] = (srcc(fixed, column), srcc(student, column))
    if data.views:
        agreements["known order"] = _known_order(run)
    return fixed, student, agreements


def _known_order(run: TrainingRun) -> tuple[float, float]:
    """Return how far fixed and learned prompts agree with the known order of held-out copies."""
    rows = Rows(*(part[:_VIEWED_ROWS] for part in run.data.held_out()))
    width = run.data.width
    views = np.concatenate(
        [rows.features[:, None], rows.views.reshape(len(rows.views), -1, width)], 1
    ).reshape(-1, width)
    clean = np.zeros((len(rows.levels), 1), rows.levels.dtype)
    levels = torch.from_numpy(np.concatenate([clean, rows.levels], 1).ravel())
    fixed = torch.from_numpy(fixed_margins(views, run.prompts))
    learned = held_out_margins(
        run.learner, context_encoder(run.towers.text), views, run.prompts.logit_scale
    )
    teacher, student = (
        float(known_order_agreement(image_scores_f64(margins), levels)[0])
        for margins in (fixed, learned)
    )
    return teacher, student


def advice(agreements: Mapping[str, tuple[float, float]]) -> str:
    """Return a sentence where the learned prompts are no better, else "".

    Agreement with a teacher is no evidence of a gain; the known order is.

    Args:
        agreements: Name -> agreement of the fixed and of the learned prompts; only ``known order`` is
            used, where present.
    """
    fixed, learned = agreements.get("known order", (0.0, 1.0))
    if learned > fixed:
        return ""
    return "By the known order the learned prompts are no better: keep the fixed ones."


def _write_beside(output: str, suffix: str, content: bytes) -> None:
    path = output.removesuffix(".safetensors") + suffix
    parent, name = path.rpartition("/")[::2] if has_scheme(path) else os.path.split(path)
    Folder.of(parent or ".").write(name, content)


def _print_summary(
    run: TrainingRun,
    state: State,
    agreements: Agreements,
    learned: LearnedPrompts,
    restarts: list[str],
) -> None:
    reasons = {
        "steps": "all steps",
        "patience": "stopped early: no improvement",
        "diverged": "it diverged",
    }
    print(
        f"{state.step:,} steps ({reasons[str(state.ended)]}), kept the prompts of step "
        f"{state.best_step:,}; agreement on {run.data.held_out_rows:,} held-out rows:"
    )
    for name, (teacher, student) in agreements.items():
        print(f"  {name}: fixed prompts {teacher:.4f}, learned prompts {student:.4f}")
    if advice(agreements):
        print(f"  {advice(agreements)}")
    for number, near in enumerate(learned.nearest_words, start=1):
        words = ", ".join(f"{word} ({distance:.2f})" for word, distance in near)
        print(f"  vector {number} is nearest to {words}")
    for sentence in restarts:
        print(f"  {sentence}")
    output = run.config.output
    page = output.removesuffix(".safetensors") + ".html"
    print(f"{output}: for `iqa score --prompts`; curves in {page}")
