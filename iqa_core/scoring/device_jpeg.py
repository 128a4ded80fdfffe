"""JPEGs to pixels of a tower's size on a device: torchcodec decodes (nvJPEG on a GPU), torch resizes.

The geometry and the passes of the resize are those of ``exact``, computed in float32. On a CPU torchcodec
gives Pillow's pixels; on a GPU nvJPEG's transforms and its upsampling of colours are others than libjpeg's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812 - PyTorch's own spelling

from iqa_core.errors import ImageError, InputError
from iqa_core.images.decode import decode_image
from iqa_core.images.jpeg import without_metadata
from iqa_core.images.resize import (
    crop_window,
    filter_of,
    is_height_first,
    is_sideways,
    resized_size,
)
from iqa_core.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from iqa_core.images.encoded import EncodedJpeg
    from iqa_core.preprocess import Preprocess

__all__ = ["DeviceDecoder", "check_torchcodec", "decode_on_device"]

#: Pixels that are decoded at a time: 200 MB.
_PIXELS = 64 * 1024 * 1024
#: What decoders paint where data ended.
_MID_GREY = 128
_FILTERS = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}


def check_torchcodec() -> None:
    """Import torchcodec's decoder of JPEGs.

    Raises:
        InputError: If it is not installed, or does not fit this torch.
    """
    try:
        from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined]  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            "--decode gpu needs torchcodec 0.17 or newer beside the torch that it was built for "
            f"({reason}): install the extra gpu on all nodes, or leave --decode out"
        ) from error


@dataclass(frozen=True)
class DeviceDecoder:
    """Decodes and resizes JPEGs on a device, by torchcodec and torch.

    Attributes:
        preprocess: Size, filter and resize mode of the tower.
        max_pixels: Limit on width x height.
    """

    preprocess: Preprocess
    max_pixels: int = DEFAULT_MAX_PIXELS

    def decode(
        self, images: Sequence[EncodedJpeg], device: str
    ) -> list[torch.Tensor | np.ndarray | ImageError]:
        """Decode images; those that the device does not decode are decoded on the CPU.

        Args:
            images: JPEGs.
            device: Such as ``cuda``.

        Returns:
            For each image pixels of the tower's size, (H, W, 3) uint8: a tensor on the device, or an array;
            or why there are none.

        Raises:
            torch.AcceleratorError: If the device itself failed. This process can't use it any more.
        """
        pixels = decode_on_device(images, self.preprocess, device)
        return [
            self.on_cpu(image.data.tobytes()) if each is None else each
            for image, each in zip(images, pixels, strict=True)
        ]

    def on_cpu(self, data: bytes) -> np.ndarray | ImageError:
        """Return the (H, W, 3) uint8 pixels of a file as ``fast`` decodes it, or why there are none."""
        try:
            return decode_image(data, self.preprocess, max_pixels=self.max_pixels).pixels
        except ImageError as error:
            return error


@torch.inference_mode()
def decode_on_device(
    images: Sequence[EncodedJpeg], preprocess: Preprocess, device: str
) -> list[torch.Tensor | None]:
    """Decode, orient and resize JPEGs on a device.

    Args:
        images: JPEGs.
        preprocess: Size, filter and resize mode of the tower.
        device: Such as ``cuda``.

    Returns:
        For each image (H, W, 3) uint8 on the device. None where the device failed on it, and where the last
        pixel is of the grey that stands for missing data: the CPU's decoder knows whether they are missing.

    Raises:
        torch.AcceleratorError: If the device itself failed.
    """
    found: list[torch.Tensor | None] = []
    for part in _parts(images):
        decoded = _decode_or_halve(part, device)
        whole = iter(_without_grey_end([each for each in decoded if each is not None]))
        for image, pixels in zip(part, decoded, strict=True):
            found.append(
                _fit(pixels, image, preprocess) if pixels is not None and next(whole) else None
            )
    return found


def _parts(images: Sequence[EncodedJpeg]) -> Iterator[Sequence[EncodedJpeg]]:
    """Yield images that are decoded together."""
    start = pixels = 0
    for place, image in enumerate(images):
        size = image.width * image.height
        if pixels and pixels + size > _PIXELS:
            yield images[start:place]
            start, pixels = place, 0
        pixels += size
    if start < len(images):
        yield images[start:]


def _decode_or_halve(images: Sequence[EncodedJpeg], device: str) -> list[torch.Tensor | None]:
    """Return (3, H, W) uint8 for each image, None for one that fails: the decoder fails as a whole."""
    from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined]

    try:
        return list(decode_jpeg([_without_orientation(image) for image in images], device=device))
    except torch.AcceleratorError:
        raise
    except Exception as error:  # whatever a decoder may raise
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        if len(images) == 1:
            return [None]
        half = len(images) // 2
        return _decode_or_halve(images[:half], device) + _decode_or_halve(images[half:], device)


def _without_orientation(image: EncodedJpeg) -> bytes:
    """Return a file without metadata, by which torchcodec would orient the image, too."""
    return without_metadata(image.data.tobytes())[0]


def _without_grey_end(decoded: Sequence[torch.Tensor]) -> list[bool]:
    """Return for each image whether its last pixel is of another colour; waits for the device once."""
    if not decoded:
        return []
    last = torch.stack([pixels[:, -1, -1] for pixels in decoded])
    return (last != _MID_GREY).any(dim=1).tolist()


def _fit(pixels: torch.Tensor, image: EncodedJpeg, preprocess: Preprocess) -> torch.Tensor | None:
    """(3, H, W) as stored -> (H', W', 3) of the tower's size; see :func:`iqa_core.images.resize.fit`."""
    size = (image.width, image.height)
    width, height = resized_size(size, preprocess)
    left, top, right, bottom = crop_window((width, height), preprocess)
    passes = [(size[1], width), (height, width)]
    if is_height_first(size, (width, height)):
        passes[0] = (height, size[0])
    resized = oriented(pixels, image.turn)[None].float()
    mode = _FILTERS[filter_of(preprocess)]
    try:
        for shape in passes:  # both round to 8 bits, as Pillow's do
            resized = F.interpolate(resized, shape, mode=mode, antialias=True)
            resized = resized.round_().clamp_(0, 255)
    except torch.AcceleratorError:
        raise
    except (
        RuntimeError
    ):  # no memory, or more of it shared than a kernel has, for the largest of images
        return None
    view = resized[0, :, top:bottom, left:right].to(torch.uint8)
    high, wide = preprocess.size
    if view.shape[1:] != (high, wide):
        padded = view.new_full((3, high, wide), preprocess.fill_color)
        y, x = (high - view.shape[1]) // 2, (wide - view.shape[2]) // 2
        padded[:, y : y + view.shape[1], x : x + view.shape[2]] = view
        view = padded
    return view.permute(1, 2, 0).contiguous()


def oriented(pixels: torch.Tensor, turn: int) -> torch.Tensor:
    """Return (3, H, W) pixels as EXIF orientation ``turn``, 1 to 8, shows them."""
    if is_sideways(turn):
        pixels = pixels.transpose(1, 2)
    flipped = [axis for axis, turns in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if turn in turns]
    return pixels.flip(flipped) if flipped else pixels
