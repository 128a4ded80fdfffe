"""Other libraries' ways from a JPEG file to the pixels of a tower, for benchmarks/decode.py.

Each reaches for the middle 224 x 224 of the image whose shorter side has 224 pixels, as near to open_clip's
transform as its library has it. A way imports its library when it is made.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

__all__ = ["SIDE", "WAYS"]

SIDE = 224

Way = Callable[[bytes], np.ndarray]


def _resized(width: int, height: int) -> tuple[int, int]:
    shorter = min(width, height)
    return int(SIDE * width / shorter), int(SIDE * height / shorter)


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (round((side - SIDE) / 2) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])


def pillow_draft() -> Way:
    """Pillow's scaled decoding and ``reducing_gap``: what Image.thumbnail does."""

    def decode(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        size = _resized(*image.size)
        image.draft("RGB", (2 * size[0], 2 * size[1]))
        image = image.convert("RGB")
        return _middle(np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)))

    return decode


def _torch_resize() -> Callable[[np.ndarray], np.ndarray]:
    import torch
    from torch.nn.functional import interpolate

    def resize(pixels: np.ndarray) -> np.ndarray:
        width, height = _resized(pixels.shape[1], pixels.shape[0])
        channels_first = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        resized = interpolate(channels_first, (height, width), mode="bicubic", antialias=True)
        return _middle(resized[0].permute(1, 2, 0).numpy())

    return resize


def simplejpeg_torch() -> Way:
    """Scaled decoding by simplejpeg, and torch's resize of uint8."""
    import simplejpeg

    resize = _torch_resize()

    def decode(data: bytes) -> np.ndarray:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        scale = next((s for s in (8, 4, 2) if min(width, height) // s >= 2 * SIDE), 1)
        return resize(
            simplejpeg.decode_jpeg(
                data, min_width=-(-width // scale), min_height=-(-height // scale)
            )
        )

    return decode


def torchvision_full() -> Way:
    """Decoding at full size by torchvision, and torch's resize of uint8."""
    import torch
    from torchvision.io import decode_jpeg

    resize = _torch_resize()

    def decode(data: bytes) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return resize(decode_jpeg(encoded).permute(1, 2, 0).numpy())

    return decode


def opencv_area() -> Way:
    """Scaled decoding by OpenCV, and INTER_AREA, its resize for reductions."""
    import cv2

    cv2.setNumThreads(1)
    flags = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flags |= {8: cv2.IMREAD_REDUCED_COLOR_8, 1: cv2.IMREAD_COLOR}

    def decode(data: bytes) -> np.ndarray:
        width, height = Image.open(io.BytesIO(data)).size
        scale = next((s for s in (8, 4, 2) if min(width, height) // s >= 2 * SIDE), 1)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags[scale])
        resized = cv2.resize(pixels, _resized(width, height), interpolation=cv2.INTER_AREA)
        return _middle(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB))

    return decode


def pyvips_thumbnail() -> Way:
    """The thumbnail of libvips: scaled decoding, and Lanczos."""
    import pyvips

    def decode(data: bytes) -> np.ndarray:
        options = {"height": SIDE, "crop": "centre", "no_rotate": True}
        return pyvips.Image.thumbnail_buffer(data, SIDE, **options).numpy()

    return decode


#: Label -> what makes it.
WAYS: dict[str, Callable[[], Way]] = {
    "simplejpeg scaled, torch uint8 bicubic": simplejpeg_torch,
    "torchvision, torch uint8 bicubic": torchvision_full,
    "OpenCV scaled, INTER_AREA": opencv_area,
    "pyvips thumbnail": pyvips_thumbnail,
    "Pillow draft, bicubic": pillow_draft,
}
