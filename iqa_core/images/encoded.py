"""JPEGs that stay encoded until a GPU decodes them: ``--decode gpu``.

Decode workers read no more of them than the header and the markers; bytes travel to the scoring actors
instead of pixels. All other images, and JPEGs that show a sign of damage, are decoded where they are
fetched, as in ``fast``. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.errors import ImageError
from iqa_core.images.colour import orientation_of
from iqa_core.images.decode import Decoded, check_pixels, decode_image
from iqa_core.images.jpeg import check_scans, common_frame, read_header
from iqa_core.images.resize import MAX_INTERMEDIATE, is_sideways, resized_size
from iqa_core.images.sniff import sniff
from iqa_core.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from iqa_core.preprocess import Preprocess

__all__ = ["EncodedJpeg", "read_for_device"]


@dataclass(frozen=True, eq=False)
class EncodedJpeg:
    """A JPEG of a common kind, whose header and markers are those of a whole file.

    Attributes:
        data: The file, (bytes,) uint8.
        width: Width in pixels after orientation.
        height: Height in pixels, likewise.
        turn: EXIF orientation, 1 to 8.
    """

    data: np.ndarray[Any, np.dtype[np.uint8]]
    width: int
    height: int
    turn: int


def read_for_device(
    data: bytes, preprocess: Preprocess, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Decoded | EncodedJpeg:
    """Leave a common JPEG encoded, for a device; decode any other image.

    Common are 8 bits, grey or three colours, Huffman-coded. One with a marker out of place or without its
    end, or whose sides are so unlike that its resized image would not fit a device, is decoded here.

    Args:
        data: The encoded file.
        preprocess: Size, filter and resize mode of the tower.
        max_pixels: Limit on width x height, checked against the header.

    Raises:
        ImageError: As of :func:`iqa_core.images.decode.decode_image`.
    """
    is_jpeg = data and sniff(data) == "JPEG"
    found = _common_jpeg(data, preprocess, max_pixels) if is_jpeg else None
    return found or decode_image(data, preprocess, max_pixels=max_pixels)


def _common_jpeg(data: bytes, preprocess: Preprocess, max_pixels: int) -> EncodedJpeg | None:
    header = read_header(data)
    frame = common_frame(header)
    if frame is None:
        return None
    width, height = frame.width, frame.height
    check_pixels((width, height), max_pixels)
    try:
        check_scans(data, header.scan)
    except ImageError:  # the CPU's decoder knows whether it matters
        return None
    turn = orientation_of(header.info)
    if is_sideways(turn):
        width, height = height, width
    resized = resized_size((width, height), preprocess)
    if resized[0] * resized[1] > MAX_INTERMEDIATE:
        return None
    return EncodedJpeg(np.frombuffer(data, np.uint8), width, height, turn)
