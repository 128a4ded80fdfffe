"""How to train: everything that changes the result, and the learning rate of each step.

Source of the schedule: Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp),
IJCV 2022, https://arxiv.org/abs/2109.01134 (few steps, warm-up, cosine).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from iqa_core.errors import InputError
from iqa_core.losses.table import Loss, make_loss

__all__ = ["Lists", "Optimizer", "Settings", "learning_rate"]

Lists = Literal["global", "local"]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train. What changes the result is here; what only changes where it runs is not.

    Attributes:
        loss: A name of :func:`iqa_core.losses.table.find_loss`.
        loss_options: Its hyper-parameters; those left out have their defaults.
        list_size: L, the images of one list, at least 2.
        lists: ``global`` lists span the workers, L / W rows from each; with ``local`` ones each
            worker ranks L rows of its own, and the gradients are averaged.
        optimizer: AdamW, or SGD with momentum 0.9.
        learning_rate: The peak.
        weight_decay: Of the context, towards 0.
        warmup: Share of the steps in which the learning rate rises from 0; then a cosine to 0.
        steps: Maximum number of steps.
        checkpoint_steps: Steps between two checks on the held-out rows, each of which is a checkpoint.
        patience: Training ends after this number of checks without a better agreement.
        logit_scale: The factor g on cosine differences.
        order_weight: Weight of the known order of degraded views beside that of the teacher, where
            the data have views; 0 ignores them.
        seed: Of the lists; the context's initial values have their own.

    Raises:
        InputError: If a value is unusable.
    """

    loss: str = "listmle"
    loss_options: Mapping[str, float] = field(default_factory=dict)
    list_size: int = 64
    lists: Lists = "global"
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.1
    steps: int = 500
    checkpoint_steps: int = 20
    patience: int = 10
    logit_scale: float = 100.0
    order_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the command line can't."""
        self.make_loss()
        for name, value, low in (
            ("list_size", self.list_size, 2),
            ("steps", self.steps, 1),
            ("checkpoint_steps", self.checkpoint_steps, 1),
            ("patience", self.patience, 1),
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
