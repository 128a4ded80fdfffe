"""GIF: pixel data that go on behind the last pixel of the first frame, which Pillow passes over.

GIF has no checksums, but a damaged code stands for another number of pixels. Data that end early
are an error of Pillow's; data left over are the other half. A missing trailer, and damage behind the
first frame, concern no pixel that is read. The format: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
"""

from __future__ import annotations

from iqa_core.schema import ImageError, Status

__all__ = ["BLOCK", "check_data"]

#: How many bytes Pillow shall read at a time, so that it stops near the last that it needs.
BLOCK = 256


def check_data(data: bytes, start: int, read: int) -> None:
    """Raise if more than a block of the first frame's data was not needed for its pixels.

    Args:
        data: The file.
        start: Where the frame's data begin, with the length of their first sub-block.
        read: Up to where they were read, in steps of ``BLOCK`` bytes.

    Raises:
        ImageError: With status ``decode_error``.
    """
    place = start
    while place < len(data) and data[place]:
        place += 1 + data[place]
    if min(place, len(data)) - read > BLOCK:
        raise ImageError(
            Status.DECODE_ERROR, "GIF image is damaged: its data go on behind the last pixel"
        )
