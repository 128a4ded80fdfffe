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

from typing import TYPE_CHECKING, get_args

import torch
from torch import nn

from iqa_core.clip.encoder import context_encoder
from iqa_core.errors import InputError
from iqa_core.prompts.learned import ContextKind, Position
from iqa_core.prompts.prefix_tree import PrefixTree
from iqa_core.scoring.margins import pair_margins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.clip.encoder import ContextTextEncoder, TextEncoder
    from iqa_core.prompts.pairs import PromptPair

__all__ = ["DEFAULT_CONTEXT_LENGTH", "PromptLearner", "lay_out"]

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
        self.token_rows = tuple(
            tuple(row[: end + 1]) for row, end in zip(tokens.tolist(), ends.tolist(), strict=True)
        )
        every = [(0, pair) for pair in range(len(self.pairs))]
        distinct, tree = lay_out(self.token_rows, every, self.context_length, position, context)
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


def lay_out(
    token_rows: Sequence[Sequence[int]],
    units: Sequence[tuple[int, int]],
    length: int,
    position: Position,
    kind: ContextKind,
) -> tuple[list[int], PrefixTree]:
    """Lay out prompts with their contexts.

    Args:
        token_rows: 2 P rows of token ids, start-of-text to end-of-text; row 2p + k is side k of pair p.
        units: (context, pair) of each pair to lay out.
        length: M.
        position: See :class:`PromptLearner`.
        kind: See :class:`PromptLearner`.

    Returns:
        The K distinct tokens, and the tree. Its symbols below K are places among them; those from K on
        are vectors, in the order of the flattened contexts.
    """
    known = sorted({token for row in token_rows for token in row})
    symbol = {token: place for place, token in enumerate(known)}
    before = {"front": length, "end": 0, "middle": length // 2}[position]
    sides = 2 if kind == "per-side" else 1
    laid_out = []
    for context, pair in units:
        for side in (0, 1):
            first = len(known) + (context * sides + side % sides) * length
            vectors = range(first, first + length)
            start, *own, end = (symbol[token] for token in token_rows[2 * pair + side])
            laid_out.append([start, *vectors[:before], *own, *vectors[before:], end])
    return known, PrefixTree.of(laid_out)
