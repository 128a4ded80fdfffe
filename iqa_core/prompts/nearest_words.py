"""The words that learned context vectors are closest to.

Source:
    Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022,
    https://arxiv.org/abs/2109.01134, section 4.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ContextTextEncoder

__all__ = ["nearest_words", "token_distance"]

_SAMPLE = 256


@torch.no_grad()
def nearest_words(
    tower: ContextTextEncoder, context: torch.Tensor, count: int = 3
) -> list[list[tuple[str, float]]]:
    """Return the tokens whose embeddings are closest to learned context vectors.

    Args:
        tower: The text tower they were learned for.
        context: (..., M, width); leading dimensions are flattened.
        count: Words for each vector.

    Returns:
        For each vector the nearest tokens (parts of words too) and their Euclidean distances in the
        token embedding, nearest first.
    """
    table = tower.token_embedding.weight
    vectors = context.detach().reshape(-1, table.shape[1]).to(table)
    # Not the matrix product that cdist prefers, which is inexact near zero.
    distances = torch.cdist(vectors, table, compute_mode="donot_use_mm_for_euclid_dist")
    distances[:, tower.tokenizer.all_special_ids] = torch.inf
    near = distances.topk(count, largest=False)
    return [
        [
            (tower.tokenizer.decode([token]).strip(), distance)
            for token, distance in zip(tokens, far, strict=True)
        ]
        for tokens, far in zip(near.indices.tolist(), near.values.tolist(), strict=True)
    ]


@torch.no_grad()
def token_distance(token_embedding: torch.Tensor) -> float:
    """Return the median distance of a token to the nearest other one: a scale for distances to words.

    A vector much farther from its nearest word than words are from each other is like none of them.

    Args:
        token_embedding: (tokens, width); a few hundred tokens, evenly spaced, are measured.
    """
    table = token_embedding.detach().float()
    chosen = torch.linspace(0, len(table) - 1, min(_SAMPLE, len(table))).long().to(table.device)
    distances = torch.cdist(table[chosen], table)
    distances[torch.arange(len(chosen)), chosen] = torch.inf
    return float(distances.amin(dim=1).median())
