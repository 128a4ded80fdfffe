"""What a training came to: agreements, health, evidence, and whether the learned prompts are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.clip.encoder import context_encoder
from iqa_core.evaluation.correlations import srcc
from iqa_core.scoring.margins import image_scores_f64
from iqa_core.scoring.margins import margins as fixed_margins
from iqa_core.training.check import agreement, held_out_margins, mean_scores
from iqa_core.training.decide import Evidence, column_evidence, known_order_evidence, verdict
from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.pair_weights import pair_weights
from iqa_core.training.safety import (
    Finding,
    PairHealth,
    check_context,
    check_loss,
    check_pairs,
    check_teacher_kept,
    correlation_between_pairs,
    pair_health,
)
from iqa_core.training.trust import tower_doubt, views_in_rows

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ContextTextEncoder, Towers
    from iqa_core.prompts.ensemble import PromptEnsemble
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.training.data import TrainingData

__all__ = ["Outcome", "conclude_training"]

_WEIGHT_VIEWS = 1024  # views of which all known pairs are compared for the weights


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a training came to, on held-out rows.

    Attributes:
        fixed: (N,) scores by the fixed prompts.
        each: (K, N) scores by each context.
        learned: (N,) scores by the contexts' average.
        agreements: Reference -> agreement of the fixed and of the learned prompts with it.
        evidence: For the decision; None if nothing could be measured.
        health: Of each pair.
        between: Mean SRCC between two pairs, of the fixed and of the learned prompts; NaN for one pair.
        findings: What went wrong.
        doubt: Why the model's words are not to be trusted, or "".
        is_better: Whether the learned prompts are to be written.
        reason: The sentence that says why.
        weights: (P,) of the pairs, or None.
    """

    fixed: np.ndarray
    each: np.ndarray
    learned: np.ndarray
    agreements: Mapping[str, tuple[float, float]]
    evidence: Evidence | None
    health: Sequence[PairHealth]
    between: tuple[float, float]
    findings: Sequence[Finding]
    doubt: str
    is_better: bool
    reason: str
    weights: np.ndarray | None


def conclude_training(
    ensemble: PromptEnsemble,
    towers: Towers,
    data: TrainingData,
    prompts: PromptFeatures,
    *,
    history: Sequence[Mapping[str, float]] = (),
    moved: float = 1.0,
    weigh_pairs: bool = False,
) -> Outcome:
    """Measure trained contexts and decide.

    Args:
        ensemble: The contexts.
        towers: The CLIP.
        data: The rows and bases.
        prompts: Features of the fixed base prompts.
        history: Of the training; without one there was none, and only pair weights are judged.
        moved: How far the contexts are from their start.
        weigh_pairs: Whether the pairs get weights in closed form.
    """
    text, scale = context_encoder(towers.text), prompts.logit_scale
    rows = data.held_out()
    before = fixed_margins(np.asarray(rows.features), prompts)
    after = held_out_margins(ensemble, text, rows.features, scale)
    weights = None
    if weigh_pairs and data.bases:
        views, levels, images = views_in_rows(data.train_bases(), data.within, _WEIGHT_VIEWS)
        learned = held_out_margins(ensemble, text, views, scale).double().sigmoid().mean(dim=1)
        weights = pair_weights(learned, levels, images)
    fixed = image_scores_f64(torch.from_numpy(before))[:, 0].numpy()
    student = mean_scores(after, weights)
    each = np.stack([mean_scores(after[:, k : k + 1], weights) for k in range(after.shape[1])])
    evidence, copies = None, None
    agreements = _agreements(data, after, fixed, student)
    if data.held_out_bases:
        evidence, copies = _known_order(data, ensemble, text, prompts, weights)
        levels, images = copies[2:]
        known = [
            float(known_order_agreement(torch.from_numpy(one[:, None]), levels, images)[0])
            for one in (
                image_scores_f64(copies[0])[:, 0].numpy(),
                mean_scores(copies[1], weights),
            )
        ]
        agreements["known order"] = (known[0], known[1])
    if data.teacher_column is not None:
        target = np.asarray(rows.targets[:, 0])
        scores = [fixed, *each, student]
        evidence = column_evidence(data.teacher_column, scores, target, data.held_out_groups())
    features = ensemble(text).detach().cpu().numpy()
    health = pair_health(ensemble.names, features, (before, after), copies)
    findings = check_pairs(health)
    if history:
        findings += check_loss(history, moved)
        findings += check_context(ensemble.context, text.token_embedding.weight)
    if data.teacher_column is None and not data.per_pair:
        trust = float(np.mean(data.trust)) if data.bases and data.trust else 0.0
        findings += check_teacher_kept(trust, agreements[f"srcc {data.teacher}"][1])
    doubt = ""
    if data.bases and data.teacher_column is None:
        doubt = tower_doubt(towers, data.train_bases(), within=data.within)
    is_better, reason = verdict(evidence)
    serious = [finding.text for finding in findings if finding.is_serious]
    if is_better and (serious or doubt):
        is_better, reason = False, "; ".join([*serious, *filter(None, [doubt])])
    return Outcome(
        fixed=fixed,
        each=each,
        learned=student,
        agreements=agreements,
        evidence=evidence,
        health=health,
        between=(
            correlation_between_pairs(before),
            correlation_between_pairs(after.double().sigmoid().mean(dim=1).numpy()),
        ),
        findings=findings,
        doubt=doubt,
        is_better=is_better,
        reason=reason,
        weights=weights,
    )


def _agreements(
    data: TrainingData, after: torch.Tensor, fixed: np.ndarray, student: np.ndarray
) -> dict[str, tuple[float, float]]:
    targets = np.asarray(data.held_out().targets)
    # Per pair, a teacher agrees with itself; in the ensemble its pairs are weighted by their trust.
    own = 1.0 if data.per_pair else srcc(fixed, targets[:, 0])
    reached = (
        agreement(after, targets, per_pair=True) if data.per_pair else srcc(student, targets[:, 0])
    )
    agreements = {f"srcc {data.teacher}": (own, reached)}
    watched = data.held_out_references()[1]
    for place, name in enumerate(data.watched):
        column = watched[:, place]
        agreements[f"srcc {name}"] = (srcc(fixed, column), srcc(student, column))
    return agreements


def _known_order(
    data: TrainingData,
    ensemble: PromptEnsemble,
    text: ContextTextEncoder,
    prompts: PromptFeatures,
    weights: np.ndarray | None,
) -> tuple[Evidence, tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Return the evidence of held-out bases, and their margins by fixed and by learned prompts."""
    bases, groups = data.measured_bases()
    views, levels, images = views_in_rows(bases, data.within)
    before = torch.from_numpy(fixed_margins(views, prompts))
    after = held_out_margins(ensemble, text, views, prompts.logit_scale)
    scores = [image_scores_f64(before)[:, 0].numpy()]
    scores += [mean_scores(after[:, k : k + 1], weights) for k in range(after.shape[1])]
    scores.append(mean_scores(after, weights))
    shaped = [one.reshape(bases.levels.shape) for one in scores]
    evidence = known_order_evidence(shaped, bases.levels, groups, within=data.within)
    return evidence, (before, after, levels, images)
