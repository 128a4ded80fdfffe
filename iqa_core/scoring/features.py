"""The prompts as scoring needs them: unit text features, names and the scale. No text tower, no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.clip.embedded import EmbeddedText
from iqa_core.clip.encoder import MAX_LOGIT_SCALE
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.clip.encoder import TextEncoder, Towers
    from iqa_core.clip.facts import ModelFacts
    from iqa_core.prompts.pairs import PromptPair

__all__ = ["PromptFeatures", "encode_prompts", "not_unit", "prompts_digest"]

#: How far the square of a length may be from 1: bfloat16 rounds that much, and twice.
_LENGTH_TOLERANCE = 0.02


@dataclass(frozen=True)
class PromptFeatures:
    """P prompt pairs, as scoring needs them: no text tower.

    Attributes:
        names: The P pairs' names.
        features: (K P, 2, D) float32 unit text features, all P pairs of the first of K contexts, then those
            of the next; side 0 is the positive prompt.
        logit_scale: The factor g on cosine differences.
        digest: SHA-256 (hex) of what the features were made from, for the run's fingerprint. Not
            of the features, whose last bits are those of the processor that computed them.
        contexts: K; a pair's score is the mean over them. 1 for fixed prompts.
        weights: (P,) of the pairs in the image score, with the sum 1; None is the mean.
    """

    names: tuple[str, ...]
    features: np.ndarray
    logit_scale: float
    digest: str
    contexts: int = 1
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that would make scores not-a-number.

        Raises:
            InputError: If a feature is not finite or not of length 1, or the scale is not above 0
                or so large that margins overflow.
        """
        wrong = not_unit(self.features).any(axis=1)
        if wrong.any():
            name = self.names[int(wrong.argmax()) % len(self.names)]
            raise InputError(
                f"the text features of prompt pair {name!r} are not finite "
                "numbers of length 1: use other prompts, or another --model"
            )
        if not 0 < self.logit_scale <= MAX_LOGIT_SCALE:
            raise InputError(
                argument="logit_scale",
                value=self.logit_scale,
                limit=f"above 0 and at most {MAX_LOGIT_SCALE:g}",
                fix="give another {logit_scale}, so that margins are finite",
            )


def encode_prompts(
    towers: Towers, pairs: Sequence[PromptPair], logit_scale: float | None = None
) -> PromptFeatures:
    """Encode base prompts with a text tower.

    Args:
        towers: The CLIP whose text tower is used.
        pairs: P base prompt pairs.
        logit_scale: Factor on cosine differences, above 0; None takes the model's own.

    Returns:
        The features of the P pairs.

    Raises:
        InputError: If the scale is not above 0, there is no pair, two have the same name, a prompt
            is too long, or the text tower returns no finite features for it.
    """
    names = tuple(pair.name for pair in pairs)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"prompt pairs are named {list(names)}: give one or more, with distinct names"
        )
    if logit_scale is not None and not (0 < logit_scale < float("inf")):
        raise InputError(
            argument="logit_scale",
            value=logit_scale,
            limit="a finite number above 0",
            fix="leave it out for the model's own, or give 1 for plain cosines",
        )
    texts = [side for pair in pairs for side in (pair.positive, pair.negative)]
    features = _text_features(towers.text, texts)
    return PromptFeatures(
        names=names,
        features=features.reshape(len(pairs), 2, -1),
        logit_scale=towers.logit_scale if logit_scale is None else float(logit_scale),
        digest=prompts_digest(towers, pairs, logit_scale),
    )


def _text_features(text: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    if isinstance(text, EmbeddedText):
        return text.encode_as_array(texts)
    return text.encode(texts).numpy()


def prompts_digest(
    model: Towers | ModelFacts, pairs: Sequence[PromptPair], logit_scale: float | None
) -> str:
    """Return the SHA-256 (hex) of what the features of base prompts are made from.

    Args:
        model: The CLIP whose text tower is used, or its facts.
        pairs: The base prompt pairs.
        logit_scale: As given by the user.
    """
    table = [[pair.name, pair.positive, pair.negative] for pair in pairs]
    source = [model.digest, model.quick_gelu, logit_scale, table]
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()


def not_unit(features: np.ndarray) -> np.ndarray:
    """Return which of (..., D) features are not finite or not of length 1, but for rounding."""
    values = features.astype(np.float64, copy=False)
    off: np.ndarray = np.abs(np.einsum("...d,...d->...", values, values) - 1)
    wrong: np.ndarray = ~np.less(off, _LENGTH_TOLERANCE)  # also where it is NaN
    return wrong
