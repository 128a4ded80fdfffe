"""ICO: pictures of 32 bits with and without a meaning in their alpha."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image

WIDTH, HEIGHT = 20, 10


def icon(alpha: np.ndarray, mask: np.ndarray | None) -> bytes:
    """Return an icon of one blue bitmap, rows from the bottom up, with its mask of one bit."""
    pixels = np.empty((HEIGHT, WIDTH, 4), dtype=np.uint8)
    pixels[...] = (200, 20, 10, 0)  # blue, green, red
    pixels[..., 3] = alpha
    body = struct.pack("<IiiHHIIiiII", 40, WIDTH, 2 * HEIGHT, 1, 32, 0, 0, 0, 0, 0, 0)
    body += pixels[::-1].tobytes()
    if mask is not None:
        packed = np.packbits(mask[::-1].astype(bool), axis=1)
        body += np.pad(packed, ((0, 0), (0, 4 - packed.shape[1]))).tobytes()
    head = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", WIDTH, HEIGHT, 0, 0, 1, 32, len(body), 22)
    return head + body


BLUE, WHITE = [10, 20, 200], [255] * 3
OPAQUE = np.zeros((HEIGHT, WIDTH))
LEFT = OPAQUE.copy()
LEFT[:, :10] = 1


def shown(data: bytes) -> list[list[int]]:
    pixels = decode_image(data).pixels
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    return pixels[5, [2, 15]].tolist()


def test_alpha_that_is_zero_everywhere_is_unused():
    assert shown(icon(OPAQUE, OPAQUE)) == [BLUE, BLUE]


def test_the_mask_is_used_instead():
    assert shown(icon(OPAQUE, LEFT)) == [WHITE, BLUE]


def test_without_a_mask_all_is_shown():
    assert shown(icon(OPAQUE, None)) == [BLUE, BLUE]


def test_alpha_that_says_something_is_used():
    assert shown(icon(255 * LEFT, OPAQUE)) == [BLUE, WHITE]


@pytest.mark.parametrize("left", [30, 70, 300, 840])
def test_cut_icon(left):
    data = icon(OPAQUE, OPAQUE)
    with pytest.raises(ImageError) as raised:
        decode_image(data[:left])
    assert raised.value.status == "decode_error"
