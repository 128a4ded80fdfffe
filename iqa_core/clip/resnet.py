"""CLIP's ResNet image tower for inference: batch norms folded, a pool of one query, large images in strips.

Source:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020, section 2.4 (three convolutions in the stem, pools
    before strided convolutions, attention pool). Equal to open_clip's ``ModifiedResNet`` up to rounding.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.clip.convolution import Convolution, fold
from iqa_core.clip.single_query import AttentionPool, SingleQueryAttention
from iqa_core.clip.strips import in_strips

__all__ = ["Bottleneck", "ResNet"]

#: Bytes of the largest activation of a strip.
STRIP_BYTES = 96 * 1024 * 1024
#: Bytes of the first stage's output, the largest of all, that are held at a time.
FIRST_STAGE_BYTES = 192 * 1024 * 1024


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut.

    Args:
        block: open_clip's block.
    """

    def __init__(self, block: Any) -> None:  # noqa: ANN401 - open_clip is not imported here
        super().__init__()
        self.stride = int(block.stride)
        self.conv1 = Convolution(*fold(block.conv1, block.bn1))
        self.conv2 = Convolution(*fold(block.conv2, block.bn2))
        self.conv3 = Convolution(*fold(block.conv3, block.bn3), keeps_nan=True)
        self.shortcut: Convolution | None = None
        if block.downsample is not None:
            _, conv, norm = block.downsample
            self.shortcut = Convolution(*fold(conv, norm), relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, D, H // stride, W // stride). The input may be overwritten."""
        y = self.conv2(self.conv1(x))
        if self.stride > 1:
            y = F.avg_pool2d(y, self.stride)
        if self.shortcut is not None:
            x = self.shortcut(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        return self.conv3(y, x)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A ResNet of CLIP's.

    Args:
        stem: Three convolutions, the first of stride 2; a pool by 2 follows.
        layers: Four stages, each at half the size of the one before but for the first.
        pool: (N, D, H, W) -> (N, O).
    """

    def __init__(
        self, stem: list[Convolution], layers: list[nn.Sequential], pool: AttentionPool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem, nn.AvgPool2d(2))
        self.layers = nn.ModuleList(layers)
        self.depths = [len(stage) for stage in layers]
        self.stem_width = len(stem[-1].bias)
        self.dtype = torch.float32
        self.attnpool = pool

    @classmethod
    def of(cls, visual: Any, *, positions: bool = True) -> Self:  # noqa: ANN401 - as above
        """Build it from open_clip's ``ModifiedResNet``.

        Args:
            visual: The tower, with its weights.
            positions: Whether the pool adds the positional embedding, which fits one size of images.
        """
        stem = [
            Convolution(*fold(visual.conv1, visual.bn1), stride=2),
            Convolution(*fold(visual.conv2, visual.bn2)),
            Convolution(*fold(visual.conv3, visual.bn3), keeps_nan=True),
        ]
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        layers = [nn.Sequential(*map(Bottleneck, stage)) for stage in stages]
        return cls(stem, layers, cls.pool_of(visual, positions=positions))

    @staticmethod
    def pool_of(visual: Any, *, positions: bool = True) -> AttentionPool:  # noqa: ANN401 - as above
        """Build the attention pool of one query from open_clip's tower."""
        pool = visual.attnpool
        attention = SingleQueryAttention(
            (pool.q_proj.weight, pool.q_proj.bias),
            pool.k_proj.weight,
            (pool.v_proj.weight, pool.v_proj.bias),
            (pool.c_proj.weight, pool.c_proj.bias),
            pool.num_heads,
        )
        return AttentionPool(attention, pool.positional_embedding if positions else None)

    def halve(self, dtype: torch.dtype) -> None:
        """Convert the convolutions to a half precision; the pool stays in float32."""
        self.dtype = dtype
        self.stem.to(dtype)
        self.layers.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, O) float32."""
        x = x.to(self.dtype)
        if (
            len(x) > 1 and self._first_rows(x) * 4 < x.shape[2]
        ):  # rows of one image alone are a view
            return torch.cat([self(image[None]) for image in x])
        # What a cut reaches in the first stage's output is half as many rows of the second's.
        halo = -(-self._first_halo // 2) + self.depths[1]
        rows = _on_cpu(x, max(1, FIRST_STAGE_BYTES // (2 * self._first_row(x))))
        x = in_strips(self._first_stages, x, factor=8, halo=halo, rows=rows)
        for number in (2, 3):
            x = self._stage(number, x)
        return self.attnpool(x)  # type: ignore[no-any-return]

    def _first_stages(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, D, H // 8, W // 8)."""
        first = nn.Sequential(self.stem, self.layers[0])
        x = in_strips(first, x, factor=4, halo=self._first_halo, rows=self._first_rows(x))
        return self._stage(1, x)

    def _stage(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, 2C, H // 2, W // 2), of any stage but the first."""
        row = x.shape[1] * x.shape[3] * x.element_size()
        rows = _on_cpu(x, max(1, STRIP_BYTES // (2 * row)))
        return in_strips(self.layers[number], x, factor=2, halo=self.depths[number], rows=rows)

    @property
    def _first_halo(self) -> int:
        # A cut reaches 3 rows through the stem, 2 after its pool, and one more by each block.
        return 2 + self.depths[0]

    def _first_row(self, x: torch.Tensor) -> int:
        """Return the bytes of a row of the first stage's output, at a quarter of the size."""
        # The stem's last convolution and the stage's output are equally large.
        return self.stem_width * x.shape[3] * x.element_size()

    def _first_rows(self, x: torch.Tensor) -> int:
        """Return how many rows of the first stage's output a strip has."""
        return _on_cpu(x, max(1, STRIP_BYTES // self._first_row(x)))


def _on_cpu(x: torch.Tensor, rows: int) -> int:
    """Return the rows of a strip; all rows on a GPU, where many small kernels cost more."""
    return rows if x.device.type == "cpu" else x.shape[2]
