"""Prompts as one sequence for a causal text tower, in which common prefixes are stored once.

In a causal transformer a token attends only to the tokens before it, so prompts with a common prefix
have the same hidden states there. Learned prompts have one by construction: with start-of-text, and
with the context in front. Laid out as a tree, each token under the one before it, all prompts are one
short sequence in which a token sees its ancestors only; nothing is padded and nothing is run twice.

Source: Miao et al., "SpecInfer", ASPLOS 2024, https://arxiv.org/abs/2305.09781, section 4.2 (attention
over a tree of tokens). What differs: it verifies guesses of a decoder; here the leaves are end-of-text
and gradients flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

import torch

__all__ = ["PrefixTree"]


class PrefixTree(NamedTuple):
    """T nodes for N prompts.

    Attributes:
        symbols: (T,) int64, what stands at each node; parents come before their children.
        positions: (T,) int64, the node's place in its prompts, from 0.
        visible: (T, T) bool, whether the row's node sees the column's: itself and its ancestors.
        ends: (N,) int64, the node of each prompt's last symbol.
    """

    symbols: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor
    ends: torch.Tensor

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]]) -> PrefixTree:
        """Lay out prompts.

        Args:
            prompts: N sequences of numbers; equal numbers are the same symbol.

        Returns:
            The tree; its T is at most the sum of the prompts' lengths.

        Raises:
            ValueError: If a prompt is empty.
        """
        nodes: dict[tuple[int, int], int] = {}  # (parent, symbol) -> node
        paths: list[list[int]] = []
        ends = []
        for prompt in prompts:
            if not prompt:
                raise ValueError("a prompt is empty: give at least one symbol")
            node = -1
            for symbol in prompt:
                parent, node = node, nodes.setdefault((node, symbol), len(nodes))
                if node == len(paths):
                    paths.append([*(paths[parent] if parent >= 0 else []), node])
            ends.append(node)
        visible = torch.zeros(len(paths), len(paths), dtype=torch.bool)
        for node, path in enumerate(paths):
            visible[node, path] = True
        return cls(
            symbols=torch.tensor([symbol for _, symbol in nodes]),
            positions=torch.tensor([len(path) - 1 for path in paths]),
            visible=visible,
            ends=torch.tensor(ends),
        )
