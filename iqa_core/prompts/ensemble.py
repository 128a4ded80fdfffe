"""Several learned contexts of the same base prompts, run through the text tower at once.

Contexts from several random starts differ, and their mean score is more reliable than each. They are
independent, so all prompts of all contexts are one prefix tree: the tower's weights are read once, not once
for each context, and workers can share the prompts between them.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from iqa_core.clip.encoder import context_encoder
from iqa_core.prompts.learned import LearnedPrompts
from iqa_core.prompts.learner import PromptLearner, lay_out
from iqa_core.prompts.nearest_words import nearest_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from iqa_core.clip.encoder import ContextTextEncoder, Towers

__all__ = ["PromptEnsemble", "learned_prompts"]


class PromptEnsemble(nn.Module):
    """K contexts of P base prompt pairs; the only parameter is ``context``.

    Args:
        learners: K learners that differ in their contexts only; copied.

    Attributes:
        context: (K, M, width) or (K, 2, M, width).
        units: (context, pair) of each pair of prompts that this process runs; all, but in
            a :meth:`part`.

    Raises:
        ValueError: If there is none, or they differ in more.
    """

    tokens: torch.Tensor
    symbols: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    ends: torch.Tensor

    def __init__(self, learners: Sequence[PromptLearner]) -> None:
        super().__init__()
        kinds = {(one.pairs, one.position, one.kind, one.context.shape) for one in learners}
        if len(kinds) != 1:
            raise ValueError(f"{len(learners)} learners of {len(kinds)} kinds: give several of one")
        first = learners[0]
        self.pairs, self.position, self.kind = first.pairs, first.position, first.kind
        self._token_rows = first.token_rows
        self.context = nn.Parameter(torch.stack([one.context.detach() for one in learners]))
        self._lay_out(0, 1)

    @property
    def contexts(self) -> int:
        """K, the number of contexts."""
        return len(self.context)

    @property
    def context_length(self) -> int:
        """M, the number of context vectors in a prompt."""
        return self.context.shape[-2]

    @property
    def names(self) -> tuple[str, ...]:
        """The P pairs' names."""
        return tuple(pair.name for pair in self.pairs)

    def part(self, rank: int, size: int) -> PromptEnsemble:
        """Return an ensemble with the same parameter that runs one of ``size`` parts of the prompts.

        Args:
            rank: Which one, from 0.
            size: The number of parts, at most K P.

        Raises:
            ValueError: If there are fewer prompts than parts.
        """
        other = copy(self)
        other._buffers = dict(self._buffers)
        other._lay_out(rank, size)
        return other

    def _lay_out(self, rank: int, size: int) -> None:
        every = [(k, p) for k in range(self.contexts) for p in range(len(self.pairs))]
        if not 0 <= rank < size <= len(every):
            raise ValueError(f"part {rank} of {size} of {len(every)} pairs of prompts")
        self.units = every[rank * len(every) // size : (rank + 1) * len(every) // size]
        distinct, tree = lay_out(
            self._token_rows, self.units, self.context_length, self.position, self.kind
        )
        mask = torch.zeros(tree.visible.shape).masked_fill(~tree.visible, -torch.inf)
        for name, buffer in (
            ("tokens", torch.tensor(distinct)),
            ("symbols", tree.symbols),
            ("positions", tree.positions),
            ("mask", mask),
            ("ends", tree.ends),
        ):
            self.register_buffer(name, buffer.to(self.context.device), persistent=False)

    def encode(self, tower: ContextTextEncoder) -> torch.Tensor:
        """Encode the prompts of :attr:`units`: (units, 2, D), as :meth:`forward`."""
        vectors = torch.cat([tower.token_embedding(self.tokens), self.context.flatten(0, -2)])
        features = tower.encode_tree(vectors[self.symbols], self.positions, self.mask, self.ends)
        return features.reshape(len(self.units), 2, -1)

    def forward(self, tower: ContextTextEncoder) -> torch.Tensor:
        """Encode all prompts; gradients flow to the contexts alone.

        Args:
            tower: The text tower that the learners were made for, on the device of this module.

        Returns:
            (K, P, 2, D) float32 features of length 1; side 0 is the positive prompt.

        Raises:
            ValueError: If this is a part.
        """
        if len(self.units) < self.contexts * len(self.pairs):
            raise ValueError(f"this runs {len(self.units)} pairs of prompts, not all")
        return self.encode(tower).reshape(self.contexts, len(self.pairs), 2, -1)


def learned_prompts(
    learner: PromptLearner | PromptEnsemble,
    towers: Towers,
    *,
    logit_scale: float | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    weights: np.ndarray | None = None,
) -> LearnedPrompts:
    """Take the prompts out of a learner.

    Args:
        learner: The trained learner, or an ensemble of several, on the device of the text tower.
        towers: The CLIP that it was trained with.
        logit_scale: Factor on cosine differences; None takes the model's own.
        training: The training's configuration.
        metrics: What was measured.
        weights: (P,) of the pairs; None is the mean.

    Returns:
        The prompts with their features and nearest words.

    Raises:
        InputError: If training diverged (the context is not finite), or the text encoder takes no context.
    """
    text = context_encoder(towers.text)
    context = learner.context.detach().float().cpu().numpy().copy()
    features = learner(text).detach().cpu().numpy()
    if isinstance(learner, PromptLearner):
        context, features = context[None], features[None]
    return LearnedPrompts(
        model=towers.name,
        weights_digest=towers.digest,
        quick_gelu=towers.quick_gelu,
        pairs=learner.pairs,
        position=learner.position,
        kind=learner.kind,
        context=context,
        text_features=features,
        logit_scale=towers.logit_scale if logit_scale is None else float(logit_scale),
        nearest_words=nearest_words(text, learner.context),
        training=training or {},
        metrics=metrics or {},
        weights=weights,
    )
