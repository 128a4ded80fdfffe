"""How to train: everything that changes the result, and the learning rate of each step.

Source of the schedule: Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp),
IJCV 2022, https://arxiv.org/abs/2109.01134 (few steps, warm-up, cosine).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from iqa_core.errors import InputError
from iqa_core.losses.table import Loss, make_loss

__all__ = ["Optimizer", "Settings", "learning_rate", "relative_rate"]

Optimizer = Literal["adamw", "sgd"]

#: Of the token embedding's standard deviation: 0.002 where that is 0.02, as CLIP's is about.
_RELATIVE_RATE = 0.1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train. What changes the result is here; what only changes where it runs is not.

    Attributes:
        loss: A name of :func:`iqa_core.losses.table.find_loss`.
        loss_options: Its hyper-parameters; those left out have their defaults.
        list_size: L, the images of one list, at least 2.
        optimizer: AdamW, or SGD with momentum 0.9.
        learning_rate: The peak.
        weight_decay: Of the context, towards 0.
        warmup: Share of the steps in which the learning rate rises from 0; then a cosine to 0.
        steps: Number of steps; the context of the last one is kept.
        checkpoint_steps: Steps between two checks on the held-out rows, each of which is a checkpoint.
        logit_scale: The factor g on cosine differences.
        order_weight: Weight of the known order of degraded copies beside that of the teacher, where
            the data have copies; 0 ignores them.
        meaning: Weight of each pair's own order by the fixed prompts, where there are several pairs, of
            which those that are trusted less then learn less of the order of quality; 0 for neither.
        seed: Of the first context's lists; the next ones have the next seeds. The contexts' initial
            values have their own.

    Raises:
        InputError: If a value is unusable.
    """

    loss: str = "listmle"
    loss_options: Mapping[str, float] = field(default_factory=dict)
    list_size: int = 64
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.1
    steps: int = 1000
    checkpoint_steps: int = 50
    logit_scale: float = 100.0
    order_weight: float = 1.0
    meaning: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the command line can't."""
        self.make_loss()
        for name, value, low in (
            ("list_size", self.list_size, 2),
            ("steps", self.steps, 1),
            ("checkpoint_steps", self.checkpoint_steps, 1),
        ):
            if value < low:
                raise InputError(
                    argument=name, value=value, limit=f"at least {low}", fix="raise it"
                )

    def make_loss(self) -> Loss:
        """Return the loss with its hyper-parameters set."""
        return make_loss(self.loss, **self.loss_options)


def learning_rate(step: int, settings: Settings) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then a cosine to 0."""
    warm = math.ceil(settings.warmup * settings.steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, settings.steps - warm)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def relative_rate(token_embedding: torch.Tensor) -> float:
    """Return a learning rate on the scale of a tower's token embedding.

    AdamW moves each number by about the learning rate a step, so a rate that suits one tower throws the
    contexts of another out of the space that its tokens fill.

    Args:
        token_embedding: (tokens, width).
    """
    return _RELATIVE_RATE * float(token_embedding.detach().float().std())
