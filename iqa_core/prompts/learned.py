"""Learned prompts: one context or several, their text features, pair weights, and how they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from iqa_core.clip.encoder import MAX_LOGIT_SCALE
from iqa_core.errors import InputError
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import PromptFeatures

if TYPE_CHECKING:
    from iqa_core.clip.encoder import Towers
    from iqa_core.clip.facts import ModelFacts

__all__ = ["ContextKind", "LearnedPrompts", "Position"]

Position = Literal["front", "end", "middle"]
ContextKind = Literal["shared", "per-side"]


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """Learned prompts and how they were made.

    Several contexts, learned from several seeds, are one set of prompts: a pair's score is the mean of its
    scores by each of them.

    Attributes:
        model: The ``--model`` text of the CLIP they were learned for; ``tower`` in the file.
        weights_digest: SHA-256 (hex) of its weights.
        quick_gelu: Whether its activation was QuickGELU.
        pairs: The P base prompt pairs.
        position: See :class:`iqa_core.prompts.learner.PromptLearner`.
        kind: ``shared`` or ``per-side``.
        context: (K, M, width) or (K, 2, M, width) float32, of K contexts.
        text_features: (K, P, 2, D) float32 of length 1; side 0 is the positive prompt.
        logit_scale: The factor g on cosine differences.
        nearest_words: For each context vector the nearest tokens and their distances.
        training: The training's configuration, as JSON holds it.
        metrics: What was measured, as JSON holds it, such as ``{"teacher": {"srcc": 0.7},
            "student": {"srcc": 0.8}}``.
        weights: (P,) float32 of the pairs in the image score, at least 0, with the sum 1; None is the mean.

    Raises:
        InputError: If the parts don't fit each other.
    """

    model: str
    weights_digest: str
    quick_gelu: bool
    pairs: tuple[PromptPair, ...]
    position: Position
    kind: ContextKind
    context: np.ndarray
    text_features: np.ndarray
    logit_scale: float
    nearest_words: list[list[tuple[str, float]]] = field(default_factory=list)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that shapes, names and numbers fit each other."""
        for problem, text in (
            (self.position not in get_args(Position), f"position {self.position!r} is unknown"),
            (self.kind not in get_args(ContextKind), f"context kind {self.kind!r} is unknown"),
            (
                self.context.ndim != {"shared": 3, "per-side": 4}.get(self.kind)
                or (self.kind == "per-side" and self.context.shape[1] != 2),
                f"a context of shape {self.context.shape[1:]} is not {self.kind}",
            ),
            (
                self.text_features.ndim != 4
                or self.text_features.shape[1:3] != (len(self.pairs), 2)
                or not self.pairs,
                f"features of shape {self.text_features.shape[1:]} do not belong to "
                f"{len(self.pairs)} pairs",
            ),
            (
                self.context.shape[:1] != self.text_features.shape[:1] or not len(self.context),
                f"{len(self.context)} contexts have features of {len(self.text_features)}",
            ),
            (
                self.weights is not None
                and (
                    self.weights.shape != (len(self.pairs),)
                    or not (self.weights >= 0).all()
                    or not np.isclose(self.weights.sum(), 1, atol=1e-4)
                ),
                f"pair weights {self.weights} are not {len(self.pairs)} numbers from 0 on with the sum 1",
            ),
            (
                len({pair.name for pair in self.pairs}) < len(self.pairs),
                "two pairs have the same name",
            ),
            (
                {self.context.dtype, self.text_features.dtype} != {np.dtype(np.float32)},
                "context and features are not float32",
            ),
            (
                not 0 < self.logit_scale <= MAX_LOGIT_SCALE,
                f"logit scale {self.logit_scale} is not a number above 0 and at most "
                f"{MAX_LOGIT_SCALE:g}",
            ),
            (not np.isfinite(self.context).all(), "the context is not finite"),
            (not np.isfinite(self.text_features).all(), "features are not finite"),
            (
                not np.allclose(np.linalg.norm(self.text_features, axis=-1), 1, atol=1e-3),
                "features are not of length 1",
            ),
        ):
            if problem:
                raise InputError(f"learned prompts don't fit together: {text}")

    @property
    def contexts(self) -> int:
        """K, the number of contexts."""
        return len(self.context)

    @property
    def features(self) -> PromptFeatures:
        """What scoring needs: no text tower."""
        source: list[Any] = [
            self.weights_digest,
            self.quick_gelu,
            self.logit_scale,
            [asdict(pair) for pair in self.pairs],
        ]
        if self.contexts > 1:
            source.append(self.contexts)
        if self.weights is not None:
            source.append(self.weights.tolist())
        stored = np.ascontiguousarray(self.text_features, dtype="<f4").tobytes()
        return PromptFeatures(
            names=tuple(pair.name for pair in self.pairs),
            features=self.text_features.reshape(-1, *self.text_features.shape[2:]),
            logit_scale=self.logit_scale,
            # The stored features are the source here: they are the same on every machine.
            digest=hashlib.sha256(json.dumps(source).encode() + stored).hexdigest(),
            contexts=self.contexts,
            weights=self.weights,
        )

    def check(self, towers: Towers | ModelFacts) -> None:
        """Refuse towers other than those that the prompts were learned for, by their facts.

        Raises:
            InputError: If the weights or the activation are others.
        """
        if towers.digest != self.weights_digest:
            raise InputError(
                f"the prompts were learned for --model {self.model} (weights "
                f"{self.weights_digest[:12]}), but --model {towers.name} has the weights "
                f"{towers.digest[:12]}: score with --model {self.model}, or learn prompts for "
                f"{towers.name}"
            )
        if towers.quick_gelu != self.quick_gelu:
            raise InputError(
                f"the prompts were learned for --model {self.model} "
                f"{'with' if self.quick_gelu else 'without'} QuickGELU, but --model {towers.name} "
                f"runs the same weights {'with' if towers.quick_gelu else 'without'} it: score with "
                f"--model {self.model}"
            )
