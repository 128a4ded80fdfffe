"""The state of a training between two steps, and its form in a checkpoint."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["State"]


@dataclass
class State:
    """Everything that training needs to continue.

    Attributes:
        step: Steps done.
        context: The K contexts.
        optimizer: The optimizer's state.
        history: One record for each check: ``step``, ``epoch``, ``loss`` (mean since the last check,
            NaN at step 0), ``learning_rate``, ``agreement``, ``seconds`` since the start or restart.
        ended: Why training ended: ``steps`` or ``diverged``; None if it has not.
    """

    step: int
    context: torch.Tensor
    optimizer: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    ended: str | None = None

    def to_bytes(self) -> bytes:
        """Return the state as a file's content."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """Read a state; tensors and plain values only, nothing that can run."""
        return cls(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
