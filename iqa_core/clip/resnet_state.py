"""CLIP's ResNet image tower from a state dict alone, without open_clip's module."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

from iqa_core.clip.resnet import ResNet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["resnet_of_state"]

#: open_clip's ``head_width`` where a configuration names none.
_HEAD_WIDTH = 64
#: Of ``torch.nn.BatchNorm2d``, which open_clip does not change.
_EPS = 1e-5


def resnet_of_state(state: Mapping[str, torch.Tensor], *, positions: bool = True) -> ResNet:
    """Build the tower of :class:`iqa_core.clip.resnet.ResNet` from weights.

    Args:
        state: Tensors by the names of open_clip's ``ModifiedResNet``, float32.
        positions: Whether the pool adds the positional embedding, which fits one size of images.

    Raises:
        KeyError: If one is missing.
    """
    stages = range(1, 5)
    visual = SimpleNamespace(
        **{f"conv{n}": _conv(state, f"conv{n}") for n in (1, 2, 3)},
        **{f"bn{n}": _norm(state, f"bn{n}") for n in (1, 2, 3)},
        **{f"layer{n}": _stage(state, f"layer{n}", 1 if n == 1 else 2) for n in stages},
        attnpool=_pool(state),
    )
    return ResNet.of(visual, positions=positions)


def _conv(state: Mapping[str, torch.Tensor], name: str) -> SimpleNamespace:
    return SimpleNamespace(weight=state[f"{name}.weight"], bias=None)


def _norm(state: Mapping[str, torch.Tensor], name: str) -> SimpleNamespace:
    fields = ("weight", "bias", "running_mean", "running_var")
    return SimpleNamespace(affine=True, eps=_EPS, **{f: state[f"{name}.{f}"] for f in fields})


def _linear(state: Mapping[str, torch.Tensor], name: str) -> SimpleNamespace:
    return SimpleNamespace(weight=state[f"{name}.weight"], bias=state[f"{name}.bias"])


def _stage(state: Mapping[str, torch.Tensor], name: str, stride: int) -> list[SimpleNamespace]:
    """Return the blocks of a stage, of which the first has its stride."""
    numbers = {int(found[1]) for key in state if (found := re.match(rf"{name}\.(\d+)\.", key))}
    return [_block(state, f"{name}.{n}", stride if n == 0 else 1) for n in sorted(numbers)]


def _block(state: Mapping[str, torch.Tensor], name: str, stride: int) -> SimpleNamespace:
    shortcut = f"{name}.downsample"
    downsample = None
    if f"{shortcut}.0.weight" in state:
        downsample = (None, _conv(state, f"{shortcut}.0"), _norm(state, f"{shortcut}.1"))
    return SimpleNamespace(
        stride=stride,
        **{f"conv{n}": _conv(state, f"{name}.conv{n}") for n in (1, 2, 3)},
        **{f"bn{n}": _norm(state, f"{name}.bn{n}") for n in (1, 2, 3)},
        downsample=downsample,
    )


def _pool(state: Mapping[str, torch.Tensor]) -> SimpleNamespace:
    names = ("q_proj", "k_proj", "v_proj", "c_proj")
    embedding = state["attnpool.positional_embedding"]
    return SimpleNamespace(
        **{name: _linear(state, f"attnpool.{name}") for name in names},
        num_heads=embedding.shape[1] // _HEAD_WIDTH,
        positional_embedding=embedding,
    )
