"""What can go wrong in a training without an error, found at its end and said in words.

A serious finding is a reason to keep the fixed prompts, whatever the held-out order says: that order
covers the kinds of degradation of ``iqa embed --views`` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.evaluation.correlations import srcc
from iqa_core.training.known_order import known_order_agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Finding",
    "PairHealth",
    "check_context",
    "check_loss",
    "check_pairs",
    "check_teacher_kept",
    "correlation_between_pairs",
    "pair_health",
]

#: Known-order agreement below which, and loss of it from which, a pair counts as inverted.
_INVERTED, _LOST = -0.1, 0.1
#: 1 - cosine of a pair's two prompts from which they are one.
_COLLAPSED = 1e-4
#: Lengths of vectors, in root mean squares of tokens, from which they left the tokens' space.
_FLOWN = 10.0
#: Trust from which a student should agree with its teacher, and by how much.
_TRUSTED, _AGREES = 0.25, 0.5


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: ``inverted``, ``collapsed``, ``zero loss``, ``flown`` or ``left teacher``.
        text: What, in a sentence.
        is_serious: Whether the fixed prompts are to be kept.
    """

    kind: str
    text: str
    is_serious: bool = True


@dataclass(frozen=True)
class PairHealth:
    """How a pair changed.

    Attributes:
        name: Of the pair.
        own: SRCC of its learned with its fixed scores on the held-out rows: whether its meaning was kept.
        known_fixed: Agreement of its fixed scores with the known order; NaN without one.
        known_learned: The same of its learned scores.
        known_each: The same of each context.
        apart: 1 - cosine of its two prompts' features, the smallest over contexts.
    """

    name: str
    own: float
    known_fixed: float
    known_learned: float
    known_each: tuple[float, ...]
    apart: float


def pair_health(
    names: Sequence[str],
    features: np.ndarray,
    rows: tuple[np.ndarray, torch.Tensor],
    copies: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None] | None,
) -> list[PairHealth]:
    """Measure each pair on held-out rows.

    Args:
        names: P names.
        features: (K, P, 2, D) of the learned prompts.
        rows: Margins of held-out rows: (N, P) of the fixed prompts, (N, K, P) of the learned ones.
        copies: Margins of held-out images and copies, (M, P) and (M, K, P), (M,) levels, and (M,) images
            or None; None without known order.
    """
    fixed, learned = rows
    mean = learned.double().sigmoid().mean(dim=1).numpy()
    apart = (1 - (features[:, :, 0] * features[:, :, 1]).sum(axis=-1)).min(axis=0)
    nan = float("nan")
    known_fixed, known, each = [nan] * len(names), [nan] * len(names), [()] * len(names)
    if copies is not None:
        before, after, levels, images = copies
        known_fixed = known_order_agreement(before, levels, images).tolist()
        scores = after.double().sigmoid().mean(dim=1)
        known = known_order_agreement(scores, levels, images).tolist()
        contexts = [
            known_order_agreement(after[:, k], levels, images) for k in range(after.shape[1])
        ]
        each = [tuple(values) for values in torch.stack(contexts, dim=1).tolist()]
    return [
        PairHealth(
            name, srcc(mean[:, p], fixed[:, p]), known_fixed[p], known[p], each[p], float(apart[p])
        )
        for p, name in enumerate(names)
    ]


def check_pairs(pairs: Sequence[PairHealth]) -> list[Finding]:
    """Find pairs that were turned round, or whose two prompts became one."""
    found = []
    for pair in pairs:
        if pair.apart < _COLLAPSED:
            text = f"pair {pair.name!r} collapsed: its two prompts have the same features"
            found.append(Finding("collapsed", text))
        if np.isnan(pair.known_learned):
            if pair.own < 0:
                text = (
                    f"pair {pair.name!r} is inverted: its scores fall where its fixed scores rise"
                )
                found.append(Finding("inverted", f"{text} (SRCC {pair.own:.2f})"))
            continue
        limit = min(_INVERTED, pair.known_fixed - _LOST)
        if pair.known_learned < limit:
            found.append(
                Finding(
                    "inverted",
                    f"pair {pair.name!r} is inverted: it orders degraded copies the wrong way round "
                    f"(agreement {pair.known_learned:.2f}, {pair.known_fixed:.2f} before)",
                )
            )
            continue
        wrong = [n for n, value in enumerate(pair.known_each, start=1) if value < limit]
        if wrong:
            found.append(
                Finding(
                    "inverted",
                    f"pair {pair.name!r} is inverted in context {', '.join(map(str, wrong))} of "
                    f"{len(pair.known_each)}: another --seed or --init may do without",
                    is_serious=False,
                )
            )
    return found


def check_loss(history: Sequence[Mapping[str, float]], moved: float) -> list[Finding]:
    """Find a training that had nothing to learn.

    Args:
        history: Records of :attr:`iqa_core.training.state.State.history`.
        moved: How far the contexts are from their start.
    """
    if any(record["loss"] for record in history[1:]) and moved:
        return []
    return [
        Finding(
            "zero loss",
            "nothing was learned, the loss was 0 in every step: the teacher is not trusted, or orders no "
            "images, and there is no known order",
        )
    ]


def check_context(context: torch.Tensor, token_embedding: torch.Tensor) -> list[Finding]:
    """Find contexts that left the space of the tokens.

    Args:
        context: (..., width) vectors.
        token_embedding: (tokens, width).
    """
    usual = token_embedding.detach().float().square().sum(dim=1).mean().sqrt()
    farthest = (
        float((context.detach().float().norm(dim=-1).amax() / usual).cpu())
        if context.numel()
        else 0
    )
    if farthest <= _FLOWN:
        return []
    return [
        Finding(
            "flown",
            f"a context flew away: a vector is {farthest:.3g} times as long as a token's: lower "
            "--learning-rate",
        )
    ]


def check_teacher_kept(trust: float, agreement: float) -> list[Finding]:
    """Find a student that no longer agrees with a teacher that can be trusted.

    Args:
        trust: Weight of the teacher, in [0, 1].
        agreement: SRCC of the student with it on held-out rows.
    """
    if trust < _TRUSTED or agreement >= _AGREES:
        return []
    return [
        Finding(
            "left teacher",
            f"the learned prompts no longer agree with the fixed ones (SRCC {agreement:.2f}), though "
            f"these can be trusted ({trust:.2f})",
        )
    ]


def correlation_between_pairs(scores: np.ndarray) -> float:
    """Return the mean SRCC between two pairs of prompts, of (N, P) scores; NaN for one pair."""
    pairs = scores.shape[1]
    each = [srcc(scores[:, p], scores[:, q]) for p in range(pairs) for q in range(p)]
    return float(np.mean(each)) if each else float("nan")
