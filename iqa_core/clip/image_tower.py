"""CLIP's image tower: uint8 pixels in, unit features out.

Sources:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020 (the model).
    Wang, Chan, Loy, https://arxiv.org/abs/2207.12396, section 3 (ResNet tower without positional
    embedding, so that images of any size keep their size).
"""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.clip.encoder import Precision, Resolution
from iqa_core.clip.lean import halve, is_lean, lean_tower
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from iqa_core.preprocess import Preprocess

__all__ = ["ImageTower", "check_resolution", "of_length_one"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ImageTower(nn.Module):
    """uint8 pixels -> unit features. Normalises on the device; holds no text tower.

    Args:
        visual: open_clip's image tower, or any module (N, 3, H, W) -> (N, D). CLIP's own ResNets and
            ViTs are rebuilt as the faster modules of :mod:`iqa_core.clip.lean`, if they aren't yet.
        preprocess: Channel means and deviations to normalise with, and the input size.
        resolution: ``model`` takes images of ``preprocess.size``; ``native`` takes any size and
            needs a ResNet, whose attention pool then runs without its positional embedding.
        width: Width D of the features.
        digest: SHA-256 (hex) of the whole model's weights, whatever the resolution.

    Raises:
        InputError: If there is no such resolution, or it is ``native`` and the tower is no ResNet.
    """

    mean: torch.Tensor
    std: torch.Tensor

    #: :meth:`encode` takes tensors, too.
    takes_tensors = True

    #: A ResNet halves the size five times, so a smaller image has nothing left to pool.
    min_side = 32

    def __init__(
        self,
        visual: nn.Module,
        preprocess: Preprocess,
        resolution: Resolution = "model",
        *,
        width: int,
        digest: str,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.preprocess = preprocess
        self.width = width
        self.digest = digest
        self.precision: Precision = "fp32"
        self._compiled: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))
        check_resolution(visual, resolution)
        native = resolution == "native"
        self.visual = lean_tower(visual, positions=not native)
        self.is_lean = is_lean(self.visual)
        if native and not self.is_lean:
            # One row of zeros broadcasts over any number of positions: no positional embedding.
            pool: Any = visual.attnpool
            zeros = torch.zeros_like(pool.positional_embedding[:1])
            pool.positional_embedding = nn.Parameter(zeros)
        self.eval().requires_grad_(requires_grad=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    def to_device(self, device: str | torch.device, precision: Precision = "auto") -> Self:
        """Move to a device and set the precision of the tower's arithmetic.

        Args:
            device: Such as ``cpu`` or ``cuda``.
            precision: ``auto`` is fp16 on a GPU (three more bits of mantissa than bf16, which rankings
                need) and fp32 on a CPU. In fp16 and bf16 the weights are converted here, once;
                normalisation, softmax, the statistics of layer norms, the last block of a ViT and the
                pool of a ResNet stay in float32.

        Returns:
            The tower itself.

        Raises:
            InputError: If there is no such precision, or the weights were converted to another one.
        """
        _check_choice("precision", precision, get_args(Precision))
        on_gpu = torch.device(device).type != "cpu"
        if precision == "auto":
            precision = "fp16" if on_gpu else "fp32"
        if self.precision not in ("fp32", precision):
            raise InputError(
                argument="precision",
                value=precision,
                limit=f"{self.precision}, which the weights were converted to",
                fix="load the model again",
            )
        self.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision != self.precision:
            halve(self.visual, _HALF[precision])
        self.precision = precision
        return self

    def compile_for(self, batch_size: int) -> None:
        """Compile the arithmetic for batches of one size with ``torch.compile``, and wait for it.

        Batches of other sizes, such as a block's last one, are computed as before: each size would be
        compiled anew, and padding computes images that nobody wants. Compiled features differ from the
        others by rounding, as those of two batch sizes do. Call it last, on the device.

        Args:
            batch_size: Images of a batch, at least 1.

        Raises:
            InputError: If images keep their own sizes.
        """
        if self.resolution == "native":
            raise InputError(
                "torch.compile needs images of one size, but with --resolution native they keep their "
                "own: leave --compile out, or use --resolution model"
            )
        self._compiled = {batch_size: torch.compile(self._features, dynamic=False)}
        # An array, as batches are: for a tensor that was made elsewhere torch would compile once more.
        self.encode(np.zeros((batch_size, *self.preprocess.size, 3), dtype=np.uint8)).cpu()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32" or self.is_lean:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_HALF[self.precision])

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Encode a batch of equally large images.

        Args:
            pixels: (N, H, W, 3) uint8 RGB.

        Returns:
            (N, D) float32 features of length 1, on the tower's device; NaN for an image whose
            features have no direction, because they overflowed or are all zero.

        Raises:
            ValueError: If the shape or type is another, or the size does not fit the tower.
        """
        batch = _as_tensor(pixels) if isinstance(pixels, np.ndarray) else pixels
        if batch.ndim != 4 or batch.shape[-1] != 3 or batch.dtype != torch.uint8:
            raise ValueError(
                f"pixels have shape {tuple(batch.shape)} and type {batch.dtype}, but must be "
                "(N, H, W, 3) of torch.uint8"
            )
        height, width = batch.shape[1:3]
        if self.resolution == "model" and (height, width) != self.preprocess.size:
            raise ValueError(
                f"images are {height} x {width}, but this tower takes {self.preprocess.size}: "
                "resize them with iqa_core.images.decode first"
            )
        if self.resolution == "native" and min(height, width) < self.min_side:
            raise ValueError(
                f"images are {height} x {width}, but at native resolution this tower needs at "
                f"least {self.min_side} px a side: use --resolution model"
            )
        compute = self._compiled.get(len(batch), self._features)
        return compute(_on_device(batch, self.device))

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 -> (N, D) float32 of length 1, on the tower's device."""
        with self._autocast():
            features = self.visual(self._normalised(pixels))
        return of_length_one(features.float())

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, channels_last as the pixels are in memory."""
        n, height, width, _ = pixels.shape
        scale = 1 / (255 * self.std.double())
        row = (scale.float(), (-self.mean * self.std.double().reciprocal()).float())
        # Whole rows, because loops over three channels are slow.
        scale, shift = (each.view(3).repeat(width) for each in row)
        images = torch.addcmul(shift, pixels.reshape(n, height, width * 3).float(), scale)
        return images.view(n, height, width, 3).permute(0, 3, 1, 2)


def _as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor that is only read and lives no longer than the array.

    Arrays from Ray's object store are read-only, of which torch warns: it has no such tensors. A copy of
    them would cost as much as the rest of an actor's work on the CPU.
    """
    pixels = np.ascontiguousarray(pixels)  # torch takes no flipped view
    if pixels.flags.writeable or not pixels.size or pixels.dtype != np.uint8:
        return torch.as_tensor(np.require(pixels, requirements=["WRITEABLE"]))
    memory = (ctypes.c_uint8 * pixels.nbytes).from_address(pixels.ctypes.data)
    return torch.frombuffer(memory, dtype=torch.uint8).view(pixels.shape)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _on_device(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return pixels on a device; the host does not wait for a GPU, nor the copy for earlier batches."""
    if device.type != "cuda" or batch.device.type != "cpu":
        return batch.to(device)
    copies, computes = _copy_stream(device), torch.cuda.current_stream(device)
    pinned = batch.pin_memory()  # of torch's pool, which takes it back when the copy is done
    with torch.cuda.stream(copies):
        moved = pinned.to(device, non_blocking=True)
    computes.wait_stream(copies)
    moved.record_stream(computes)
    return moved


def of_length_one(features: torch.Tensor) -> torch.Tensor:
    """Normalise rows; one without a direction becomes NaN, not zeros that would score 0.5."""
    length = features.norm(dim=-1, keepdim=True)  # infinite where the squares overflow
    return F.normalize(features, dim=-1).where((length > 0) & length.isfinite(), torch.nan)


def check_resolution(visual: nn.Module, resolution: Resolution) -> None:
    """Check that open_clip's image tower has this resolution.

    Raises:
        InputError: If there is no such resolution, or it is ``native`` and the tower is no ResNet.
    """
    _check_choice("resolution", resolution, get_args(Resolution))
    if resolution == "native" and not hasattr(visual, "attnpool"):  # ResNets alone have one
        raise InputError(
            f"--resolution native needs a ResNet image tower, but this one is a "
            f"{type(visual).__name__} of fixed size: use --resolution model, or a model "
            "such as RN50/openai"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            argument=name,
            value=value,
            limit=f"one of {', '.join(choices)}",
            fix=f"leave it out for {choices[0]}",
        )
