"""Learned prompts: context vectors around the base prompts, trained through a frozen text tower.

Sources:
    Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022,
    https://arxiv.org/abs/2109.01134 (context vectors, shared or per class, and where they stand).
    Wang, Chan, Loy, https://arxiv.org/abs/2207.12396, section 4.4 (CLIP-IQA+: CoOp on one pair).
What differs: several base pairs share the context; tokens are counted as the tokenizer splits them,
not as words; nothing behind end-of-text is run, and what prompts begin with in common is run once.
CoOp names the place of the class ("end" is context first); here a position is the place of the context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from iqa_core.clip.encoder import context_encoder
from iqa_core.errors import InputError
from iqa_core.prompts.file import ContextKind, LearnedPrompts, Position
from iqa_core.prompts.nearest_words import nearest_words
from iqa_core.prompts.prefix_tree import PrefixTree
from iqa_core.scoring.margins import pair_margins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iqa_core.clip.encoder import ContextTextEncoder, TextEncoder, Towers
    from iqa_core.prompts.pairs import PromptPair

__all__ = ["DEFAULT_CONTEXT_LENGTH", "PromptLearner", "learned_prompts"]

DEFAULT_CONTEXT_LENGTH = 8
_INIT_STD = 0.02  # CoOp's, and about that of CLIP's own token embedding


class PromptLearner(nn.Module):
    """Context vectors, and how to write them into base prompts.

    The only parameter, and all of the state dict, is ``context``. The frozen text tower is passed
    to each call instead of being a part: so it is neither saved, nor copied, nor synchronised.

    Args:
        tower: The text tower to learn for; read, not kept.
        pairs: P base prompt pairs, with distinct names.
        context_length: M, the number of context vectors, at least 0. None is the number of tokens
            in ``init``, or else :data:`DEFAULT_CONTEXT_LENGTH`.
        position: Where the context stands in a prompt: ``front`` before the base prompt's tokens,
            ``end`` behind them, ``middle`` around them (M // 2 before, the rest behind).
        context: ``shared`` by all pairs and both sides, (M, width), or ``per-side``: one for the
            positive and one for the negative prompts of all pairs, (2, M, width). CoOp's
            class-specific context, the sides being the classes.
        init: ``random`` draws the initial context from N(0, 0.02), the same for both sides; any other
            text, such as "a photo of", gives its token embeddings.
        seed: Of that draw.

    Attributes:
        context: (M, width) or (2, M, width), the trained parameter.

    Raises:
        InputError: If the tower takes no embeddings, an argument is unusable, or a prompt with its
            context is longer than the tower takes.
    """

    tokens: torch.Tensor
    symbols: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    ends: torch.Tensor

    def __init__(
        self,
        tower: TextEncoder,
        pairs: Sequence[PromptPair],
        *,
        context_length: int | None = None,
        position: Position = "front",
        context: ContextKind = "shared",
        init: str = "random",
        seed: int = 0,
    ) -> None:
        super().__init__()
        tower = context_encoder(tower)
        for name, value, known in (
            ("position", position, get_args(Position)),
            ("context", context, get_args(ContextKind)),
        ):
            if value not in known:
                raise InputError(
                    argument=name,
                    value=value,
                    limit=f"one of {', '.join(known)}",
                    fix=f"leave it out for {known[0]}",
                )
        self.pairs = tuple(pairs)
        names = [pair.name for pair in self.pairs]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"prompt pairs are named {names}: give one or more, with distinct names"
            )
        self.position = position
        self.kind = context
        start = _initial_context(tower, context_length, init, seed)
        self.context = nn.Parameter(start if context == "shared" else torch.stack([start, start]))

        prompts = [side for pair in self.pairs for side in (pair.positive, pair.negative)]
        tokens = tower.tokenize(prompts).to(start.device)
        ends = tower.end_of_text(tokens)
        end, prompt = max(zip(ends.tolist(), prompts, strict=True))
        needed = end + 1 + self.context_length
        if needed > tower.context_length:
            raise InputError(
                f"prompt {prompt!r} has {end + 1} tokens, with {self.context_length} context "
                f"vectors {needed}, but the text tower takes at most {tower.context_length}: "
                f"use at most {tower.context_length - end - 1} vectors or a shorter prompt"
            )
        distinct, tree = _tree(tokens, ends, self.context_length, position, context)
        mask = torch.zeros(tree.visible.shape).masked_fill(~tree.visible, -torch.inf)
        # They follow from the arguments, so they are no state; buffers only to move with .to().
        for name, buffer in (
            ("tokens", torch.tensor(distinct)),
            ("symbols", tree.symbols),
            ("positions", tree.positions),
            ("mask", mask),
            ("ends", tree.ends),
        ):
            self.register_buffer(name, buffer.to(start.device), persistent=False)

    @property
    def context_length(self) -> int:
        """M, the number of context vectors in a prompt."""
        return self.context.shape[-2]

    @property
    def names(self) -> tuple[str, ...]:
        """The P pairs' names."""
        return tuple(pair.name for pair in self.pairs)

    def forward(self, tower: ContextTextEncoder) -> torch.Tensor:
        """Encode the prompts; gradients flow to the context alone.

        Args:
            tower: The text tower given to the constructor, on the device of this module.

        Returns:
            (P, 2, D) float32 features of length 1; side 0 is the positive prompt.
        """
        vectors = torch.cat([tower.token_embedding(self.tokens), self.context.flatten(0, -2)])
        features = tower.encode_tree(vectors[self.symbols], self.positions, self.mask, self.ends)
        return features.reshape(len(self.pairs), 2, -1)

    def margins(
        self, tower: ContextTextEncoder, images: torch.Tensor, logit_scale: float = 1.0
    ) -> torch.Tensor:
        """Return :func:`pair_margins` of these prompts; arguments and result as there."""
        return pair_margins(self(tower), images, logit_scale)


def learned_prompts(
    learner: PromptLearner,
    towers: Towers,
    *,
    logit_scale: float | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> LearnedPrompts:
    """Take the prompts out of a learner.

    Args:
        learner: The trained learner, on the device of the text tower.
        towers: The CLIP that it was trained with.
        logit_scale: Factor on cosine differences; None takes the model's own.
        training: The training's configuration.
        metrics: What was measured.

    Returns:
        The prompts with their features and nearest words.

    Raises:
        InputError: If training diverged (the context is not finite), or the text encoder takes no context.
    """
    text = context_encoder(towers.text)
    return LearnedPrompts(
        model=towers.name,
        weights_digest=towers.digest,
        quick_gelu=towers.quick_gelu,
        pairs=learner.pairs,
        position=learner.position,
        kind=learner.kind,
        context=learner.context.detach().float().cpu().numpy().copy(),
        text_features=learner(text).detach().cpu().numpy(),
        logit_scale=towers.logit_scale if logit_scale is None else float(logit_scale),
        nearest_words=nearest_words(text, learner.context),
        training=training or {},
        metrics=metrics or {},
    )


def _initial_context(
    tower: ContextTextEncoder, length: int | None, init: str, seed: int
) -> torch.Tensor:
    """Return (M, width)."""
    embedding: torch.Tensor = tower.token_embedding.weight.detach()
    if init != "random":
        ids = tower.tokenizer.encode(init)
        if not ids or length not in (None, len(ids)):
            raise InputError(
                f"context words {init!r} are {len(ids)} tokens, but the context length is "
                f"{length}: leave the length out" + ("" if ids else " and give some words")
            )
        return embedding[torch.tensor(ids, device=embedding.device)].clone()
    length = DEFAULT_CONTEXT_LENGTH if length is None else length
    if length < 0:
        raise InputError(
            argument="context_length", value=length, limit="at least 0", fix="leave it out for 8"
        )
    # Drawn on the CPU, so that a seed means the same on every device.
    draw = torch.randn(length, embedding.shape[1], generator=torch.Generator().manual_seed(seed))
    return _INIT_STD * draw.to(embedding)


def _tree(
    tokens: torch.Tensor,
    ends: torch.Tensor,
    length: int,
    position: Position,
    context: ContextKind,
) -> tuple[list[int], PrefixTree]:
    """Lay out the prompts with their context.

    Args:
        tokens: (2 P, L) token ids; row 2p + k is side k of pair p.
        ends: (2 P,) positions of end-of-text; what follows is never read.
        length: M.
        position: See :class:`PromptLearner`.
        context: See :class:`PromptLearner`.

    Returns:
        The K distinct tokens, and the tree. Its symbols below K are places among them; vector m of
        context k is K + k M + m.
    """
    prompts = [row[: end + 1] for row, end in zip(tokens.tolist(), ends.tolist(), strict=True)]
    known = sorted({token for prompt in prompts for token in prompt})
    symbol = {token: place for place, token in enumerate(known)}
    before = {"front": length, "end": 0, "middle": length // 2}[position]
    laid_out = []
    for row, prompt in enumerate(prompts):
        first = len(known) + (row % 2 * length if context == "per-side" else 0)
        vectors = range(first, first + length)
        start, *own, end = (symbol[token] for token in prompt)
        laid_out.append([start, *vectors[:before], *own, *vectors[before:], end])
    return known, PrefixTree.of(laid_out)
