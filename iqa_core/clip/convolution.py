"""A convolution with its batch norm and activation in one, by the fastest kernel for its input.

Sources:
    Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
    https://arxiv.org/abs/1509.09308 (3 x 3 kernels with fewer multiplications; NNPACK's tiles give 36
    outputs for 64 multiplications, where a direct convolution takes 324).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

__all__ = ["Convolution", "fold"]

#: From these sizes on NNPACK measured faster than oneDNN on AVX2, its changes of layout included.
_WINOGRAD_CHANNELS = 128
_WINOGRAD_POSITIONS = 1000


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight (O, I, k, k) and bias (O,), float32, of a convolution with its batch norm.

    Computed in float64.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics can't be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() * scale
    if norm.affine:
        bias = bias + norm.bias.double()
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    return weight.detach().float(), bias.detach().float()


@cache
def _winograd_is_faster() -> bool:
    """Whether NNPACK works and measured faster: on AVX2 (on AVX-512 oneDNN was; not seen elsewhere)."""
    return bool(
        hasattr(torch, "_nnpack_spatial_convolution")
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and torch._nnpack_available()
    )


@cache
def _fused() -> Any:  # noqa: ANN401 - an operator
    """Return oneDNN's convolution with activation, which torch.compile uses, too; None if absent."""
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return torch.ops.mkldnn
    return None


class Convolution(nn.Module):
    """A convolution of stride 1 or 2 with bias, and ReLU, and an addend before the ReLU.

    Args:
        weight: (O, I, k, k).
        bias: (O,).
        stride: Of both sides.
        relu: Whether ReLU follows.
        winograd: Whether 3 x 3 kernels may take NNPACK's fast algorithm.
        keeps_nan: Whether the ReLU must pass not-a-number on, which costs one more pass.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int = 1,
        *,
        relu: bool = True,
        winograd: bool = True,
        keeps_nan: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.stride = stride
        self.padding = weight.shape[-1] // 2
        self.relu = relu
        self.keeps_nan = keeps_nan
        self.winograd = winograd and weight.shape[-1] == 3 and stride == 1

    def forward(self, x: torch.Tensor, addend: torch.Tensor | None = None) -> torch.Tensor:
        """Convolve.

        Args:
            x: (N, I, H, W), channels_last.
            addend: (N, O, H', W'), added before the ReLU; may be overwritten.

        Returns:
            (N, O, H', W'), channels_last.
        """
        fused = _fused() if x.device.type == "cpu" and x.dtype == torch.float32 else None
        if fused is None:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
            if addend is not None:
                y += addend
            return y.relu_() if self.relu else y
        if addend is None and self._is_for_winograd(x) and _winograd_is_faster():
            return self._winograd(x)
        sides = ([self.padding] * 2, [self.stride] * 2, [1, 1], 1)
        # oneDNN's ReLU makes zero of not-a-number; the sums, which carry it to the features, take torch's.
        kind = "relu" if self.relu and not self.keeps_nan else None
        if addend is None:
            y = fused._convolution_pointwise(
                x, self.weight, self.bias, *sides, kind or "none", [], ""
            )
        else:
            y = fused._convolution_pointwise_.binary(
                addend, x, self.weight, self.bias, *sides, "add", 1.0, kind, [], None
            )
        return y.relu_() if self.relu and self.keeps_nan else y  # type: ignore[no-any-return]

    def _is_for_winograd(self, x: torch.Tensor) -> bool:
        return (
            self.winograd
            and len(x) == 1
            and min(self.weight.shape[:2]) >= _WINOGRAD_CHANNELS
            and x.shape[2] * x.shape[3] >= _WINOGRAD_POSITIONS
        )

    def _winograd(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (1, I, H, W) by NNPACK, which takes and gives the channels first."""
        _, channels, height, width = x.shape
        first = _transposed(x.permute(0, 2, 3, 1).reshape(height * width, channels))
        y = torch._nnpack_spatial_convolution(
            first.view(1, channels, height, width),
            self.weight.contiguous(),
            self.bias,
            [1, 1],
            [1, 1],
        )
        last = _transposed(y.view(-1, height * width))
        del first, y
        if self.relu:
            last.relu_()
        return last.view(1, height, width, -1).permute(0, 3, 1, 2)


def _transposed(matrix: torch.Tensor) -> torch.Tensor:
    """Return (M, N) contiguous as (N, M) contiguous, by torch's blocked copy."""
    return matrix.new_empty(matrix.shape[1], matrix.shape[0]).copy_(matrix.t())
