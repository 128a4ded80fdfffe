"""Attention of one query over many positions, without keys and values.

For one query q, head h's scores are x . (W_k,h^T q_h), and its output is W_v,h (sum of weights x x):
two small products instead of the projection of every position. The keys' bias adds the same to all
scores, so that softmax drops it; the weights' sum is 1, so that the values' bias is added at the end.
Equal to attention with keys and values up to rounding.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

__all__ = ["AttentionPool", "SingleQueryAttention"]


class SingleQueryAttention(nn.Module):
    """Multi-head attention of one query over the positions of a batch; computed in float32.

    Args:
        query: Weight (D, D) and bias (D,) of the query's projection.
        key: Weight (D, D) of the keys' projection.
        value: Weight (D, D) and bias (D,) of the values' projection.
        out: Weight (O, D) and bias (O,) of the output's projection.
        heads: Heads H, a divisor of D.
    """

    def __init__(
        self,
        query: tuple[torch.Tensor, torch.Tensor],
        key: torch.Tensor,
        value: tuple[torch.Tensor, torch.Tensor],
        out: tuple[torch.Tensor, torch.Tensor],
        heads: int,
    ) -> None:
        super().__init__()
        width = key.shape[1]
        self.heads = heads
        scale = (width // heads) ** -0.5
        self.query_weight = nn.Parameter(query[0].detach().float() * scale)
        self.query_bias = nn.Parameter(query[1].detach().float() * scale)
        self.key = nn.Parameter(key.detach().float().reshape(heads, -1, width).clone())
        self.value = nn.Parameter(value[0].detach().float().reshape(heads, -1, width).clone())
        self.value_bias = nn.Parameter(value[1].detach().float().clone())
        self.out_weight = nn.Parameter(out[0].detach().float().clone())
        self.out_bias = nn.Parameter(out[1].detach().float().clone())

    def forward(self, query: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            query: (N, D) float32.
            positions: (N, L, D) float32, contiguous or a transposed view.

        Returns:
            (N, O) float32.
        """
        n, width = query.shape
        # One product for each head with all images in it: by image, the weights would be read N times.
        q = F.linear(query, self.query_weight, self.query_bias).view(n, self.heads, -1)
        u = torch.bmm(q.transpose(0, 1), self.key).transpose(0, 1)  # (N, H, D)
        weights = (u @ positions.transpose(1, 2)).softmax(dim=-1)  # (N, H, L)
        mixed = (weights @ positions).transpose(0, 1)  # (H, N, D)
        values = torch.bmm(mixed, self.value.transpose(1, 2)).transpose(0, 1)  # (N, H, D / H)
        values = values.reshape(n, width) + self.value_bias
        return F.linear(values, self.out_weight, self.out_bias)


class AttentionPool(nn.Module):
    """The attention pool of CLIP's ResNets: the query is the mean over positions.

    Args:
        attention: Its projections.
        embedding: (L + 1, D), added to the mean and the L positions; None adds nothing, and so takes
            any number of positions.
    """

    def __init__(self, attention: SingleQueryAttention, embedding: torch.Tensor | None) -> None:
        super().__init__()
        self.attention = attention
        self.embedding = None if embedding is None else nn.Parameter(embedding.detach().float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (N, D, H, W) of any floating-point type to (N, O) float32."""
        x = x.permute(0, 2, 3, 1).flatten(1, 2).float()  # (N, L, D); no copy of channels_last
        mean = x.mean(dim=1, keepdim=True)
        x = torch.cat([mean, x], dim=1)
        if self.embedding is not None:
            x += self.embedding
        return self.attention(x[:, 0], x)  # type: ignore[no-any-return]
