"""Common JPEGs by libjpeg-turbo without a detour: 8 bits, grey or three colours, Huffman-coded.

simplejpeg (https://github.com/jfolz/simplejpeg) hands libjpeg-turbo the whole file and takes whole rows,
which Pillow passes on in pieces. Both use the accurate inverse transform and smooth chroma upsampling and
give the same pixels, at every scale.

It also reports the warnings of libjpeg, which Pillow drops. A file without any is whole: its blocks are all
there, and it ends with its end marker. Any other goes to Pillow and the checks of
:mod:`iqa_core.images.jpeg`, which tell damage from oddities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg  # type: ignore[import-untyped]

__all__ = ["decode", "scale_for"]

Size = tuple[int, int]  # width, height
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def scale_for(size: Size, wanted: Size) -> int:
    """Return the largest of 1, 2, 4 and 8 by which ``size`` can be divided and cover ``wanted``."""
    largest = min(size[0] // wanted[0], size[1] // wanted[1])
    return next((scale for scale in (8, 4, 2) if scale <= largest), 1)


def decode(data: bytes, size: Size, scale: int, colours: str) -> Pixels | None:
    """Decode a grey or three-colour JPEG at 1/``scale`` of its size.

    Args:
        data: The file.
        size: Its width and height.
        scale: 1, 2, 4 or 8.
        colours: ``RGB``, ``RGBX`` (with an unused fourth byte) or ``GRAY``.

    Returns:
        Shape (ceil(height / scale), ceil(width / scale), channels), C-contiguous and writable; None if
        libjpeg reports an error or a warning.
    """
    width, height = (-(-side // scale) for side in size)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, colours, min_width=width, min_height=height, strict=True
        )
    except ValueError:  # with libjpeg's text
        return None
    return pixels
