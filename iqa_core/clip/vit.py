"""CLIP's ViT image tower for inference: the last block is computed for the class token alone.

Source:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020. Equal to open_clip's ``VisionTransformer`` with
    ``pool_type="tok"`` up to rounding: nothing reads the other tokens of the last block.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.clip.single_query import SingleQueryAttention

__all__ = ["Block", "LastBlock", "VisionTransformer"]

#: Tokens in one pass on a CPU, so that the MLP's activations stay in its caches.
CPU_TOKENS = 400


class Norm(nn.LayerNorm):
    """A layer norm with open_clip's weights; torch computes its statistics in float32.

    Args:
        norm: open_clip's.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, eps=norm.eps)
        self.load_state_dict(norm.state_dict())


def _scaled(linear: nn.Linear, scale: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a linear layer with the LayerScale behind it, if there is one."""
    gamma = getattr(scale, "gamma", None)
    weight, bias = linear.weight.detach(), linear.bias.detach()
    if gamma is None:
        return weight.clone(), bias.clone()
    gamma = gamma.detach().double()
    return (weight.double() * gamma[:, None]).float(), (bias.double() * gamma).float()


class Mlp(nn.Module):
    """The MLP of a block with its layer norm.

    Args:
        block: open_clip's block.
        quick_gelu: Whether the activation is QuickGELU.
    """

    def __init__(self, block: Any, *, quick_gelu: bool) -> None:  # noqa: ANN401 - not imported here
        super().__init__()
        self.norm = Norm(block.ln_2)
        self.up_weight, self.up_bias = _parameters(_scaled(block.mlp.c_fc, nn.Identity()))
        self.down_weight, self.down_bias = _parameters(_scaled(block.mlp.c_proj, block.ls_2))
        self.quick_gelu = quick_gelu
        self.approximate = "none" if quick_gelu else block.mlp.gelu.approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the MLP's output to (M, D), in place, and return it."""
        y = F.linear(self.norm(x), self.up_weight, self.up_bias)
        y = (
            y * torch.sigmoid(1.702 * y)
            if self.quick_gelu
            else F.gelu(y, approximate=self.approximate)
        )
        return x.add_(self.down_bias).addmm_(y, self.down_weight.t())


class Block(nn.Module):
    """A block of all tokens.

    Args:
        block: open_clip's ``ResidualAttentionBlock``.
        quick_gelu: Whether the activation is QuickGELU.
    """

    def __init__(self, block: Any, *, quick_gelu: bool) -> None:  # noqa: ANN401 - as above
        super().__init__()
        attention = block.attn
        self.heads = int(attention.num_heads)
        self.norm = Norm(block.ln_1)
        self.in_weight = nn.Parameter(attention.in_proj_weight.detach().clone())
        query, _, value = attention.in_proj_bias.detach().chunk(3)
        self.query_bias = nn.Parameter(query.clone())
        # The keys' bias adds the same to all scores of a query, so that softmax drops it; weights that
        # add up to 1 pass the values' bias on to the output's.
        weight, bias = _scaled(attention.out_proj, block.ls_1)
        passed = (weight.double() @ value.double() + bias.double()).float()
        self.out_weight, self.out_bias = _parameters((weight, passed))
        self.mlp = Mlp(block, quick_gelu=quick_gelu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, D) -> (N, L, D). The input is overwritten."""
        n, length, width = x.shape
        projected = F.linear(self.norm(x), self.in_weight)
        projected[..., :width] += self.query_bias
        q, k, v = projected.view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, width)
        flat = x.view(-1, width)  # a view: what is added to it is added to x
        flat.add_(self.out_bias).addmm_(mixed, self.out_weight.t())
        self.mlp(flat)
        return x


class LastBlock(nn.Module):
    """A block whose result is read at the class token alone; computed in float32.

    Args:
        block: open_clip's ``ResidualAttentionBlock``.
        quick_gelu: Whether the activation is QuickGELU.
    """

    def __init__(self, block: Any, *, quick_gelu: bool) -> None:  # noqa: ANN401 - as above
        super().__init__()
        attention = block.attn
        query, key, value = attention.in_proj_weight.detach().chunk(3)
        query_bias, _, value_bias = attention.in_proj_bias.detach().chunk(3)
        self.norm = Norm(block.ln_1)
        self.attention = SingleQueryAttention(
            (query, query_bias), key, (value, value_bias),
            _scaled(attention.out_proj, block.ls_1), int(attention.num_heads),
        )  # fmt: skip
        self.mlp = Mlp(block, quick_gelu=quick_gelu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, D) float32 -> (N, D) float32."""
        normed = self.norm(x)
        token = x[:, 0] + self.attention(normed[:, 0], normed)
        return self.mlp(token)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """A ViT of CLIP's.

    Args:
        visual: open_clip's ``VisionTransformer``, with its weights; it must pool by the class token.
        quick_gelu: Whether the activation is QuickGELU.
    """

    def __init__(self, visual: Any, *, quick_gelu: bool) -> None:  # noqa: ANN401 - as above
        super().__init__()
        weight = visual.conv1.weight.detach()
        self.patch_size = (weight.shape[2], weight.shape[3])
        # Rows and columns of a patch, then channels: as pixels lie in memory.
        self.patch_weight = nn.Parameter(weight.permute(0, 2, 3, 1).flatten(1).contiguous())
        embedding = visual.positional_embedding.detach()
        self.positions = nn.Parameter(embedding[1:].clone())
        self.class_token = nn.Parameter(visual.class_embedding.detach() + embedding[0])
        norm = visual.ln_pre
        self.norm_pre = Norm(norm) if isinstance(norm, nn.LayerNorm) else nn.Identity()
        *blocks, last = visual.transformer.resblocks
        self.blocks = nn.Sequential(*(Block(block, quick_gelu=quick_gelu) for block in blocks))
        self.last = LastBlock(last, quick_gelu=quick_gelu)
        self.norm_post = Norm(visual.ln_post)
        self.projection = nn.Parameter(visual.proj.detach().clone())

    def halve(self, dtype: torch.dtype) -> Self:
        """Convert all but the last block and the projection to a half precision."""
        for name, tensor in self.named_parameters(recurse=False):
            if name != "projection":
                tensor.data = tensor.data.to(dtype)
        self.norm_pre.to(dtype)
        self.blocks.to(dtype)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, O) float32."""
        length = len(self.positions) + 1
        step = max(1, CPU_TOKENS // length) if x.device.type == "cpu" else len(x)
        if len(x) > step:
            return torch.cat([self._features(part) for part in x.split(step)])
        return self._features(x)

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(self.blocks(self._tokens(x)).float())
        return self.norm_post(x) @ self.projection  # type: ignore[no-any-return]

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) as (N, L, D); without padding a convolution of patches is a product."""
        n, _, height, width = x.shape
        high, wide = self.patch_size
        rows, columns = height // high, width // wide
        x = x[:, :, : rows * high, : columns * wide].to(self.patch_weight.dtype)
        patches = x.permute(0, 2, 3, 1).unflatten(2, (columns, wide)).unflatten(1, (rows, high))
        patches = patches.transpose(2, 3).reshape(n, rows * columns, -1)
        tokens = x.new_empty(n, rows * columns + 1, len(self.class_token))
        tokens[:, 0] = self.class_token
        tokens[:, 1:] = F.linear(patches, self.patch_weight).add_(self.positions)
        return self.norm_pre(tokens)  # type: ignore[no-any-return]


def _parameters(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(pair[0]), nn.Parameter(pair[1])
