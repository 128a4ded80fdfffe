"""Rendered image distortions with one continuous severity scale.

One module for training (`tools/train_tiny.py`), the benchmark (`benchmarks/tiny_quality.py`) and
the demo. The set follows the distortion lists of TID2013 (Ponomarenko et al., Signal Processing:
Image Communication 2015, https://www.ponomarenko.info/tid2013.htm) and KADID-10k (Lin et al.,
QoMEX 2019, http://database.mmsp-kn.de/kadid-10k-database.html). It differs from both: strengths
are our own, continuous rather than in five steps, and spatial sizes (blur radius, block size)
follow the shorter side of the image, so that a level looks alike at every image size.

Every function takes a uint8 RGB array `(H, W, 3)`, a severity in `[0, 1]` and a NumPy generator,
and returns a new uint8 array of the same shape. Severity 0 is nearly invisible, 1 is severe.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

__all__ = [
    "DISTORTIONS",
    "EXTRA_KINDS",
    "KINDS",
    "LEVELS",
    "UNSEEN_KINDS",
    "apply",
    "distort",
]

ImageArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Distortion = Callable[[ImageArray, float, np.random.Generator], ImageArray]

LEVELS = (1, 2, 3, 4, 5)
# Spatial sizes below are in pixels of an image whose shorter side has this many.
REFERENCE_SIDE = 384.0
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _unit(image: ImageArray) -> FloatArray:
    return image.astype(np.float32) * np.float32(1 / 255)


def _to_uint8(unit: NDArray[Any]) -> ImageArray:
    return (np.clip(unit, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _scale(image: ImageArray) -> float:
    return max(0.5, min(image.shape[:2]) / REFERENCE_SIDE)


def _mix(low: float, high: float, severity: float) -> float:
    """Geometric interpolation: equal steps of severity are equal ratios of strength."""
    return float(low * (high / low) ** severity)


def _luma(unit: FloatArray) -> FloatArray:
    return (unit @ LUMA)[..., None]


def _convolve(image: ImageArray, kernel: NDArray[Any]) -> ImageArray:
    """Convolve each channel with a small kernel `(k, k)` through the FFT, edges reflected."""
    pad = kernel.shape[0] // 2
    padded = np.pad(_unit(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, s=shape)[..., None]
    full = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    return _to_uint8(full[2 * pad :, 2 * pad :])


def _codec(image: ImageArray, name: str, **options: Any) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _resize(image: ImageArray, height: int, width: int, how: Image.Resampling) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((width, height), how))


# --- blur ------------------------------------------------------------------------------------


def gaussian_blur(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Blur with a Gaussian of sigma 0.7 to 7 pixels."""
    sigma = _mix(0.7, 7.0, severity) * _scale(image)
    return _to_uint8(ndimage.gaussian_filter(_unit(image), (sigma, sigma, 0), truncate=3.0))


def motion_blur(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Smear along a straight line of 4 to 40 pixels in a random direction."""
    length = _mix(4.0, 40.0, severity) * _scale(image)
    angle = rng.uniform(0, np.pi)
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for step in np.linspace(-length / 2, length / 2, int(4 * length) + 1):
        y, x = half + step * np.sin(angle), half + step * np.cos(angle)
        top, left = int(y), int(x)
        kernel[top, left] += (1 - y + top) * (1 - x + left)
        kernel[top, left + 1] += (1 - y + top) * (x - left)
        kernel[top + 1, left] += (y - top) * (1 - x + left)
        kernel[top + 1, left + 1] += (y - top) * (x - left)
    return _convolve(image, kernel / kernel.sum())


def defocus_blur(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Blur with a disc of radius 1.3 to 13 pixels, as a lens out of focus does."""
    radius = _mix(1.3, 13.0, severity) * _scale(image)
    half = int(np.ceil(radius)) + 1
    grid = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(grid[0], grid[1]), 0.0, 1.0)
    return _convolve(image, kernel / kernel.sum())


def jitter(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Take each pixel from a random place 0.7 to 9 pixels around it, as frosted glass does."""
    spread = _mix(0.7, 9.0, severity) * _scale(image)
    height, width = image.shape[:2]
    offset = np.rint(rng.normal(0, spread, (2, height, width))).astype(np.int64)
    rows = np.clip(np.arange(height)[:, None] + offset[0], 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] + offset[1], 0, width - 1)
    return image[rows, columns]


# --- noise -----------------------------------------------------------------------------------


def gaussian_noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add colour noise of standard deviation 0.03 to 0.35."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return _to_uint8(_unit(image) + _mix(0.03, 0.35, severity) * noise)


def grain(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add grey, slightly coarse noise of standard deviation 0.03 to 0.3, as film grain is."""
    noise = rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    soft = ndimage.gaussian_filter(noise, (0.6, 0.6, 0))
    soft /= soft.std() + 1e-6
    return _to_uint8(_unit(image) + _mix(0.03, 0.3, severity) * soft)


def shot_noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Count photons: 500 down to 4 of them make white (Poisson noise)."""
    photons = _mix(500.0, 4.0, severity)
    return _to_uint8(rng.poisson(_unit(image) * photons) / photons)


def impulse_noise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Replace 0.5 % to 30 % of the pixels by black or white (salt and pepper)."""
    chance = rng.random(image.shape[:2], dtype=np.float32)
    share = _mix(0.005, 0.3, severity)
    out = image.copy()
    out[chance < share] = 0
    out[chance < share / 2] = 255
    return out


# --- codecs and resolution -------------------------------------------------------------------


def jpeg(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Encode as JPEG at quality 40 down to 2."""
    return _codec(image, "JPEG", quality=round(_mix(40.0, 2.0, severity)))


def webp(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Encode as WebP at quality 30 down to 0, after halving the size at the strong end."""
    height, width = image.shape[:2]
    factor = 1.0 - 0.6 * max(0.0, severity - 0.4)
    small = _resize(image, round(height * factor), round(width * factor), Image.Resampling.BICUBIC)
    coded = _codec(small, "WEBP", quality=round(30 * (1 - severity)), method=2)
    return _resize(coded, height, width, Image.Resampling.BICUBIC)


def jpeg2000(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Encode as JPEG 2000 at 30:1 to 500:1."""
    return _codec(
        image,
        "JPEG2000",
        quality_mode="rates",
        quality_layers=[_mix(30.0, 500.0, severity)],
        irreversible=True,
    )


def low_resolution(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shrink by 1.7 to 14 and enlarge again (bilinear or bicubic, at random)."""
    height, width = image.shape[:2]
    factor = _mix(1.7, 14.0, severity) * _scale(image)
    how = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)[int(rng.integers(2))]
    small = _resize(
        image, max(2, round(height / factor)), max(2, round(width / factor)), Image.Resampling.BOX
    )
    return _resize(small, height, width, how)


def pixelate(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Replace blocks of 2 to 20 pixels by their mean colour."""
    height, width = image.shape[:2]
    factor = _mix(2.0, 20.0, severity) * _scale(image)
    small = _resize(
        image, max(2, round(height / factor)), max(2, round(width / factor)), Image.Resampling.BOX
    )
    return _resize(small, height, width, Image.Resampling.NEAREST)


def aliasing(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Keep one pixel in 1.6 to 9 without filtering first: jagged edges and moire patterns."""
    height, width = image.shape[:2]
    factor = _mix(1.6, 9.0, severity) * _scale(image)
    small = _resize(
        image,
        max(2, round(height / factor)),
        max(2, round(width / factor)),
        Image.Resampling.NEAREST,
    )
    return _resize(small, height, width, Image.Resampling.BILINEAR)


# --- tone and colour -------------------------------------------------------------------------


def dark(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Underexpose by 0.5 to 4.5 stops (in linear light)."""
    linear = _unit(image) ** 2.2 * 2.0 ** -(0.5 + 4.0 * severity)
    return _to_uint8(linear ** (1 / 2.2))


def overexposed(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Overexpose by 0.4 to 3.2 stops (in linear light), highlights clipped."""
    linear = _unit(image) ** 2.2 * 2.0 ** (0.4 + 2.8 * severity)
    return _to_uint8(np.minimum(linear, 1.0) ** (1 / 2.2))


def low_contrast(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Pull all values towards the mean grey: 80 % down to 10 % of the contrast is left."""
    unit = _unit(image)
    centre = float(_luma(unit).mean())
    return _to_uint8(centre + (unit - centre) * _mix(0.8, 0.1, severity))


def haze(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Veil with bright fog that is denser at the top and uneven (10 % to 85 % of it)."""
    height, width = image.shape[:2]
    clouds = ndimage.gaussian_filter(rng.standard_normal((12, 12)), 1.5)
    clouds = (clouds - clouds.min()) / (np.ptp(clouds) + 1e-6)
    field = np.asarray(
        Image.fromarray(clouds.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    )
    depth = 0.6 + 0.25 * np.linspace(1, 0, height, dtype=np.float32)[:, None] + 0.15 * field
    veil = np.clip(_mix(0.1, 0.95, severity) * depth, 0.0, 0.95)[..., None]
    light = np.float32(rng.uniform(0.8, 0.95))
    return _to_uint8(_unit(image) * (1 - veil) + light * veil)


def colour_cast(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Tint the whole image with one random strong hue, by 12 % to 70 %."""
    unit = _unit(image)
    hue = rng.uniform(0, 2 * np.pi)
    tint = 0.5 + 0.5 * np.cos(hue + np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    tinted = _luma(unit) * (tint / max(float(tint @ LUMA), 0.35)).astype(np.float32)
    share = _mix(0.12, 0.7, severity)
    return _to_uint8(unit * (1 - share) + tinted * share)


def desaturation(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Take 20 % to 100 % of the colour away."""
    unit = _unit(image)
    share = 0.2 + 0.8 * severity
    return _to_uint8(unit * (1 - share) + _luma(unit) * share)


def posterise(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Leave 16 down to 2 values for each channel."""
    steps = _mix(16.0, 2.0, severity) - 1.0
    return _to_uint8(np.rint(_unit(image) * steps) / steps)


# --- damage ----------------------------------------------------------------------------------


def blocks(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Move 2 % to 40 % of the 24-pixel blocks elsewhere, as a damaged video stream does."""
    height, width = image.shape[:2]
    size = max(8, round(24 * _scale(image)))
    out = image.copy()
    share = _mix(0.02, 0.4, severity)
    reach = 2 * size
    for top in range(0, height - size + 1, size):
        for left in range(0, width - size + 1, size):
            chance, dy, dx = rng.random(3)
            if chance < share:
                y = int(np.clip(top + (2 * dy - 1) * reach, 0, height - size))
                x = int(np.clip(left + (2 * dx - 1) * reach, 0, width - size))
                out[top : top + size, left : left + size] = image[y : y + size, x : x + size]
    return out


def holes(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Lose 1 % to 35 % of the image in flat runs of 16-pixel blocks, as lost packets do."""
    height, width = image.shape[:2]
    size = max(6, round(16 * _scale(image)))
    value = (0, 128, 255)[int(rng.integers(3))]
    rows, columns = -(-height // size), -(-width // size)
    lost = np.zeros(rows * columns, dtype=bool)
    target = max(1, round(_mix(0.01, 0.35, severity) * lost.size))
    while lost.sum() < target:
        start = int(rng.integers(lost.size))
        lost[start : start + int(rng.integers(1, max(2, columns // 2)))] = True
    mask = np.kron(lost.reshape(rows, columns), np.ones((size, size), bool))[:height, :width]
    out = image.copy()
    out[mask] = value
    return out


def oversharpen(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Sharpen until bright and dark halos appear: unsharp mask of strength 1 to 12."""
    unit = _unit(image)
    sigma = 1.6 * _scale(image)
    soft = ndimage.gaussian_filter(unit, (sigma, sigma, 0), truncate=3.0)
    return _to_uint8(unit + _mix(1.0, 12.0, severity) * (unit - soft))


# --- wider damage, for training only ---------------------------------------------------------


def warp(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Bend the image smoothly: waves of 20 to 60 pixels that move places by 1 to 9 pixels."""
    height, width = image.shape[:2]
    reach = _mix(1.0, 9.0, severity) * _scale(image)
    cell = rng.uniform(20, 60) * _scale(image)
    grid = (2, max(3, round(height / cell)), max(3, round(width / cell)))
    bend = [
        np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC))
        for part in rng.standard_normal(grid, dtype=np.float32) * reach
    ]
    places = np.mgrid[:height, :width] + np.stack(bend)
    channels = [
        ndimage.map_coordinates(image[..., c], places, order=1, mode="nearest") for c in range(3)
    ]
    return np.stack(channels, axis=-1)


def tear(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shift bands of 3 to 20 rows sideways by up to 2 to 40 pixels, as a bad video tape does."""
    reach = _mix(2.0, 40.0, severity) * _scale(image)
    out, top = image.copy(), 0
    while top < len(image):
        rows = int(rng.integers(3, 21))
        shift = round(float(rng.uniform(-reach, reach)))
        out[top : top + rows] = np.roll(image[top : top + rows], shift, axis=1)
        top += rows
    return out


def comb(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Shift every second pair of rows by 2 to 24 pixels: interlaced video of a moving scene."""
    shift = round(_mix(2.0, 24.0, severity) * _scale(image))
    out = image.copy()
    for start in (0, 1):
        out[start::4] = np.roll(image[start::4], shift, axis=1)
    return out


def ghost(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Add a displaced copy of the image, 12 % to 50 % of it."""
    share = _mix(0.12, 0.5, severity)
    reach = rng.uniform(6, 30) * _scale(image)
    angle = rng.uniform(0, 2 * np.pi)
    offset = (round(reach * np.sin(angle)), round(reach * np.cos(angle)))
    copy = np.roll(image, offset, axis=(0, 1))
    return _to_uint8(_unit(image) * (1 - share) + _unit(copy) * share)


def median(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Paint over detail: a median filter at 1 down to 1/4 of the size, as strong denoising does."""
    height, width = image.shape[:2]
    factor = max(1.0, _mix(1.0, 4.0, severity) * _scale(image))
    small = Image.fromarray(image).resize(
        (max(8, round(width / factor)), max(8, round(height / factor))), Image.Resampling.BOX
    )
    painted = small.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MedianFilter(3))
    return np.asarray(painted.resize((width, height), Image.Resampling.BILINEAR))


def halftone(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Print with dots: an ordered dither of 4 by 4 pixels, 10 % to 90 % of it."""
    order = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    size = max(1, round(_scale(image)))
    screen = np.kron((order + 0.5) / 16, np.ones((size, size)))
    height, width = image.shape[:2]
    repeat = (-(-height // len(screen)), -(-width // len(screen)))
    threshold = np.tile(screen, repeat)[:height, :width, None]
    unit, share = _unit(image), _mix(0.1, 0.9, severity)
    return _to_uint8(unit * (1 - share) + (unit > threshold) * share)


def speckle(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Multiply by coarse noise of standard deviation 0.06 to 0.7 and 1 to 4 pixels."""
    height, width = image.shape[:2]
    noise = rng.standard_normal((height, width), dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, rng.uniform(0.4, 1.8) * _scale(image))
    noise *= _mix(0.06, 0.7, severity) / (noise.std() + 1e-6)
    return _to_uint8(_unit(image) * (1 + noise[..., None]))


def chroma_shift(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Pull red and blue apart by 1 to 14 pixels, as a bad lens or a bad print does."""
    reach = _mix(1.0, 14.0, severity) * _scale(image)
    angle = rng.uniform(0, 2 * np.pi)
    offset = (round(reach * np.sin(angle)), round(reach * np.cos(angle)))
    if offset == (0, 0):
        offset = (0, 1)
    out = image.copy()
    out[..., 0] = np.roll(image[..., 0], offset, axis=(0, 1))
    out[..., 2] = np.roll(image[..., 2], (-offset[0], -offset[1]), axis=(0, 1))
    return out


def vignette(image: ImageArray, severity: float, rng: np.random.Generator) -> ImageArray:
    """Darken towards the borders: 15 % to 95 % of the light is lost in the corners."""
    height, width = image.shape[:2]
    centre = rng.uniform(0.35, 0.65, 2)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] - centre[0]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :] - centre[1]
    loss = np.clip(2.2 * (x**2 + y**2), 0, 1) * _mix(0.15, 0.95, severity)
    return _to_uint8(_unit(image) * (1 - loss[..., None]))


DISTORTIONS: dict[str, Distortion] = {
    function.__name__: function
    for function in (
        gaussian_blur,
        motion_blur,
        defocus_blur,
        jitter,
        gaussian_noise,
        grain,
        shot_noise,
        impulse_noise,
        jpeg,
        webp,
        jpeg2000,
        low_resolution,
        pixelate,
        aliasing,
        dark,
        overexposed,
        low_contrast,
        haze,
        colour_cast,
        desaturation,
        posterise,
        blocks,
        holes,
        oversharpen,
        warp,
        tear,
        comb,
        ghost,
        median,
        halftone,
        speckle,
        chroma_shift,
        vignette,
    )
}
# Used in training only, so that `tiny` meets more ways in which an image can be spoiled.
EXTRA_KINDS = (
    *("warp", "tear", "comb", "ghost", "median", "halftone", "speckle", "chroma_shift"),
    "vignette",
)
KINDS = tuple(kind for kind in DISTORTIONS if kind not in EXTRA_KINDS)
# Never used in training `tiny`; the benchmark reports them apart.
UNSEEN_KINDS = ("jitter", "haze")


def distort(image: ImageArray, kind: str, severity: float, seed: int) -> ImageArray:
    """Distort an image at a continuous severity.

    Args:
        image: uint8 RGB array `(H, W, 3)`, at least 16 pixels on each side; not changed.
        kind: One of `KINDS` or `EXTRA_KINDS`.
        severity: Strength in `[0, 1]`.
        seed: Fixes directions, places and noise. The same seed at rising severities gives a ladder.

    Returns:
        A new uint8 RGB array `(H, W, 3)`.

    Raises:
        ValueError: If the array is not uint8 RGB, the kind is unknown, or the severity is out of
            range.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        msg = f"image has shape {image.shape} and type {image.dtype}: give uint8 RGB (H, W, 3)"
        raise ValueError(msg)
    if kind not in DISTORTIONS:
        names = ", ".join(DISTORTIONS)
        raise ValueError(f"distortion kind {kind!r} is unknown: use one of {names}")
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity {severity} is out of range: use 0 to 1")
    return DISTORTIONS[kind](image, severity, np.random.default_rng(seed))


def apply(image: ImageArray, kind: str, level: float, seed: int = 0) -> ImageArray:
    """Distort an image at a level: 0 is the clean image, 1 (slight) to 5 (severe), or between.

    Args:
        image: uint8 RGB array `(H, W, 3)`; not changed.
        kind: One of `KINDS` or `EXTRA_KINDS`.
        level: Strength in `[0, 5]`; below 1 the severity is that of level 1 and only 0 is clean.
        seed: Fixes directions, places and noise.

    Returns:
        A new uint8 RGB array `(H, W, 3)`.

    Raises:
        ValueError: As `distort`, or if the level is out of range.
    """
    if not 0.0 <= level <= LEVELS[-1]:
        raise ValueError(f"level {level} is out of range: use 0 (clean) to {LEVELS[-1]}")
    if level == 0:
        return image.copy()
    return distort(image, kind, max(0.0, (level - 1) / (LEVELS[-1] - 1)), seed)
