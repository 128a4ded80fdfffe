"""Which of open_clip's image towers have a faster module here, and that module.

A tower is recognised by its class and by every option that changes what it computes; any other one
stays open_clip's. A module from here is unpickled without importing open_clip or torchvision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from iqa_core.clip.resnet import ResNet
from iqa_core.clip.vit import VisionTransformer

__all__ = ["halve", "is_lean", "lean_tower"]


def lean_tower(visual: nn.Module, *, positions: bool = True) -> nn.Module:
    """Return the module that computes what an image tower does, faster; the tower itself if none does.

    Args:
        visual: The tower, with its weights, in float32.
        positions: Whether a ResNet's attention pool adds its positional embedding.
    """
    if any(tensor.is_meta or tensor.dtype != torch.float32 for tensor in visual.parameters()):
        return visual
    with torch.no_grad():
        if _is_resnet(visual):
            return ResNet.of(visual, positions=positions)
        if _is_vit(visual):
            activation = visual.transformer.resblocks[0].mlp.gelu  # type: ignore[union-attr,index]
            return VisionTransformer(visual, quick_gelu=_kind(activation) == _QUICK_GELU)
    return visual


def is_lean(visual: nn.Module) -> bool:
    """Return whether an image tower is one of the faster modules."""
    return isinstance(visual, (ResNet, VisionTransformer))


def halve(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert weights to a half precision, once.

    A lean module knows which; of others those layers that autocast computes in half, so that it finds
    nothing to convert in each pass. They still need autocast.
    """
    if isinstance(module, (ResNet, VisionTransformer)):
        module.halve(dtype)
        return
    for layer in module.modules():
        if type(layer) in (nn.Linear, nn.Conv2d):
            layer.to(dtype)


_OWN = "open_clip"
_QUICK_GELU = f"{_OWN}.transformer.QuickGELU"
_NORMS = {f"{_OWN}.transformer.LayerNorm", f"{_OWN}.transformer.LayerNormFp32"}


def _kind(module: object) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_resnet(visual: Any) -> bool:  # noqa: ANN401 - open_clip is not imported here
    if _kind(visual) != f"{_OWN}.modified_resnet.ModifiedResNet":
        return False
    norms = [each for each in visual.modules() if "BatchNorm" in type(each).__name__]
    return _kind(visual.attnpool) == f"{_OWN}.modified_resnet.AttentionPool2d" and all(
        type(norm) is nn.BatchNorm2d and norm.running_var is not None for norm in norms
    )


def _is_vit(visual: Any) -> bool:  # noqa: ANN401 - as above
    if _kind(visual) != f"{_OWN}.transformer.VisionTransformer":
        return False
    transformer = visual.transformer
    return (
        visual.pool_type == "tok"
        and visual.attn_pool is None
        and not visual.output_tokens
        and visual.proj is not None
        and visual.conv1.bias is None
        and (type(visual.ln_pre) is nn.Identity or _kind(visual.ln_pre) in _NORMS)
        and _kind(visual.ln_post) in _NORMS
        and _kind(transformer) == f"{_OWN}.transformer.Transformer"
        and all(map(_is_block, transformer.resblocks))
        and len({_kind(block.mlp.gelu) for block in transformer.resblocks}) == 1
    )


def _is_block(block: Any) -> bool:  # noqa: ANN401 - as above
    attention = block.attn
    return (
        _kind(block) == f"{_OWN}.transformer.ResidualAttentionBlock"
        and type(attention) is nn.MultiheadAttention
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and attention.batch_first
        and {_kind(block.ln_1), _kind(block.ln_2)} <= _NORMS
        and all(
            type(scale) is nn.Identity or _kind(scale) == f"{_OWN}.transformer.LayerScale"
            for scale in (block.ls_1, block.ls_2)
        )
        and (type(block.mlp.gelu) is nn.GELU or _kind(block.mlp.gelu) == _QUICK_GELU)
    )
