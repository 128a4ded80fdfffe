"""Functions shared by the distortions: scales, colours, convolution, codecs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "LUMA",
    "FloatArray",
    "ImageArray",
    "convolve",
    "encode_and_decode",
    "gaussian_filter",
    "interpolate",
    "luma",
    "pixel_scale",
    "resize",
    "to_uint8",
    "to_unit",
]

ImageArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

# Spatial sizes are in pixels of an image whose shorter side has this many.
_REFERENCE_SIDE = 384.0
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def to_unit(image: ImageArray) -> FloatArray:
    """Return pixels as float32 in [0, 1]."""
    return image.astype(np.float32) * np.float32(1 / 255)


def to_uint8(unit: NDArray[Any]) -> ImageArray:
    """Return values of [0, 1], clipped to it, as uint8."""
    pixels: ImageArray = (np.clip(unit, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return pixels


def pixel_scale(image: ImageArray) -> float:
    """Return the factor on sizes in pixels that makes them relative to the image's size."""
    return float(max(0.5, min(image.shape[:2]) / _REFERENCE_SIDE))


def interpolate(low: float, high: float, severity: float) -> float:
    """Interpolate geometrically: equal steps of severity are equal ratios of strength."""
    return float(low * (high / low) ** severity)


def luma(unit: FloatArray) -> FloatArray:
    """Return the luma (H, W, 1) of pixels (H, W, 3)."""
    return (unit @ LUMA)[..., None]


def convolve(image: ImageArray, kernel: NDArray[Any]) -> ImageArray:
    """Convolve each channel with a small kernel `(k, k)` through the FFT, edges reflected."""
    pad = kernel.shape[0] // 2
    padded = np.pad(to_unit(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, s=shape)[..., None]
    full = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    return to_uint8(full[2 * pad :, 2 * pad :])


def encode_and_decode(image: ImageArray, name: str, **options: Any) -> ImageArray:  # noqa: ANN401
    """Return an image as Pillow reads it after it was written in a format."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resize(image: ImageArray, height: int, width: int, how: Image.Resampling) -> ImageArray:
    """Return an image in another size."""
    return np.asarray(Image.fromarray(image).resize((width, height), how))


def gaussian_filter(values: NDArray[Any], sigma: Any, **options: Any) -> NDArray[Any]:  # noqa: ANN401
    """Return SciPy's Gaussian filter of an array; SciPy is imported when it is needed."""
    from scipy import ndimage

    filtered: NDArray[Any] = ndimage.gaussian_filter(values, sigma, **options)
    return filtered
