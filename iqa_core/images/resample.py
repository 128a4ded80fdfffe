"""The resize of ``fast``: 8 bits, antialiased, with vector instructions.

cykooz.resizer (the Rust crate fast_image_resize, https://github.com/Cykooz/fast_image_resize) has Pillow's
kernels with coefficients of 16 bits instead of 22, so that of a thousand values about three differ, by 1.
It gives the same bits with AVX2, with SSE4.1 and without them. Where it is not installed (it has no wheel
for Linux on ARM), Pillow computes the same more slowly.

Both round to 8 bits between the two passes, so the order of these shows.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

try:
    import cykooz_resizer as cykooz  # type: ignore[import-untyped]
except ImportError:  # no wheel for this platform
    cykooz = None

__all__ = ["resize_part", "unwrap", "wrap_pixels"]

Box = tuple[float, float, float, float]  # left, top, right, bottom
Span = tuple[float, float]
Size = tuple[int, int]  # width, height

_SUPPORT = {Image.Resampling.BICUBIC: 2, Image.Resampling.BILINEAR: 1}

#: Mode of an image that shares the memory of an array of RGB and an unused fourth byte: Pillow can map such
#: an array in this mode, and cykooz.resizer takes it as four independent channels.
_RGBX = "CMYK"


_KERNELS = (
    {}
    if cykooz is None
    else {
        Image.Resampling.BICUBIC: cykooz.ResizeAlg.convolution(cykooz.FilterType.catmull_rom),
        Image.Resampling.BILINEAR: cykooz.ResizeAlg.convolution(cykooz.FilterType.bilinear),
    }
)


def wrap_pixels(pixels: np.ndarray) -> Image.Image:
    """Return an image that shares the memory of an array, for :func:`resize_part`.

    Args:
        pixels: Shape (H, W, 4), RGB and an unused byte, or (H, W, 1), grey; uint8 and C-contiguous.
    """
    height, width, channels = pixels.shape
    mode = _RGBX if channels == 4 else "L"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def unwrap(image: Image.Image) -> Image.Image:
    """Return an image of :func:`wrap_pixels`, or a resized one, as RGB."""
    if image.mode == _RGBX:
        return Image.frombytes("RGB", image.size, image.tobytes(), "raw", "RGBX")
    return image if image.mode == "RGB" else image.convert("RGB")


def resize_part(
    image: Image.Image,
    box: Box,
    size: Size,
    resample: Image.Resampling,
    *,
    height_first: bool = False,
) -> Image.Image:
    """Resize a part of an image.

    Args:
        image: Of mode RGB, or from :func:`wrap_pixels`. It is not changed.
        box: The part, in pixels of ``image``. Kernels reach beyond it, as in ``Image.resize``.
        size: Width and height of the result.
        resample: BICUBIC or BILINEAR.
        height_first: Reduce by height before width.

    Returns:
        An image of mode RGB or L.
    """
    first, second = (1, 0) if height_first else (0, 1)
    span = (box[second], box[second + 2])
    near = _reach(span, size[second], image.size[second], resample)
    image = _resize_axis(image, first, (box[first], box[first + 2]), size[first], near, resample)
    if image.mode == _RGBX:
        image = _as_rgb(image)
    span = (span[0] - near[0], span[1] - near[0])
    return _resize_axis(image, second, span, size[second], (0, size[first]), resample)


def _reach(span: Span, length: int, limit: int, resample: Image.Resampling) -> tuple[int, int]:
    """Return the first and the last but one of the rows or columns that the kernels use."""
    margin = 1 + math.ceil(_SUPPORT[resample] * max(1.0, (span[1] - span[0]) / length))
    return max(0, math.floor(span[0]) - margin), min(limit, math.ceil(span[1]) + margin)


def _resize_axis(
    image: Image.Image,
    axis: int,
    span: Span,
    length: int,
    across: tuple[int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Resize along one axis (0 is width); of the other one take ``across`` unchanged."""
    stop = min(span[1], image.size[axis])
    extent = across[1] - across[0]
    box: Box
    if axis == 0:
        box, size = (span[0], across[0], stop, across[1]), (length, extent)
    else:
        box, size = (across[0], span[0], across[1], stop), (extent, length)
    if cykooz is None:
        return image.resize(size, resample, box=box)
    kernel = _KERNELS[resample]
    resized = Image.new("RGB" if image.mode == "RGBa" else image.mode, size)
    left, top, right, bottom = box
    options = cykooz.ResizeOptions(
        resize_alg=kernel, crop_box=cykooz.CropBox(left, top, right - left, bottom - top)
    )
    cykooz.Resizer().resize_pil(image, resized, options)  # a Resizer has buffers: one a thread
    return resized


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of mode RGB, or of one from which cykooz.resizer makes RGB."""
    if cykooz is None:
        return unwrap(image)
    return Image.frombytes("RGBa", image.size, image.tobytes())
