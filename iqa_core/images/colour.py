"""Converts loaded images of any mode to oriented RGB, with transparency shown on white.

ICC profiles are ignored, as in CLIP's training pipelines and in open_clip's transform.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

__all__ = ["orient", "orient_rgb", "orientation", "orientation_of", "to_rgb"]

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_EXTRA_SAMPLES_TAG = 338
_WHITE_IS_ZERO = 0
_ALPHA = {1, 2}  # associated, unassociated

#: Formats in which a fourth channel may be present but unused.
_ALPHA_MAY_BE_UNUSED = {"BMP", "DIB", "ICO", "CUR", "TGA", "TIFF", "JPEG2000"}


def orient_rgb(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation and convert to RGB.

    Transparency, of a whole channel or of a single colour, is shown on white. 16-bit grey keeps
    its high byte, which is what Pillow does for 16-bit colour and which undoes both usual ways to
    write 8 bits as 16 (times 256 and times 257). Integer and float grey without a declared range
    is taken as the first of [0, 1] (float only), [0, 255] and [0, 65535] that holds all values, and
    stretched from its own minimum and maximum if none does; not-a-number is black.

    Args:
        image: An image of any mode; it is not changed, except that Pillow loads it.

    Returns:
        A Pillow image of mode RGB, ``image`` itself if there is nothing to do.

    Raises:
        OSError, ValueError: As Pillow's ``load`` and ``convert``.
    """
    image.load()  # before the EXIF is read: PNG may hold it behind the pixels, TIFF applies it
    return orient(to_rgb(image), orientation(image))


def orient(image: Image.Image, turn: int) -> Image.Image:
    """Apply an EXIF orientation, 1 to 8; return ``image`` itself if it is 1."""
    return image.transpose(_TRANSPOSE[turn]) if turn in _TRANSPOSE else image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF data are damaged, as viewers do."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # struct.error, SyntaxError, ...: no reason to lose a whole photograph
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def orientation_of(info: dict[str, Any]) -> int:
    """Return the EXIF orientation by the entries that Pillow's ``info`` would have."""
    if not info:
        return 1
    holder = Image.new("L", (1, 1))
    holder.info.update(info)
    return orientation(holder)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to RGB, on white where it is transparent."""
    if image.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(image)
    key = image.info.get("transparency")
    if key is not None and image.mode in ("1", "L", "RGB"):
        return _whiten_key(image.convert("RGB"), key)
    if _alpha_is_unused(image):
        image = _without_alpha(image)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow's only conversion of La
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or (
        image.mode == "P" and image.has_transparency_data
    ):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _alpha_is_unused(image: Image.Image) -> bool:
    """Return whether an alpha channel is zero throughout in a format that may leave it unused.

    The fourth sample of a TIFF is alpha if the file declares it as such.
    """
    if image.mode not in ("RGBA", "RGBa", "LA", "La"):
        return False
    declared = _ALPHA.intersection(getattr(image, "tag_v2", {}).get(_EXTRA_SAMPLES_TAG, ()))
    may_be_unused = image.format in _ALPHA_MAY_BE_UNUSED
    return may_be_unused and not declared and image.getextrema()[-1] == (0, 0)


def _without_alpha(image: Image.Image) -> Image.Image:
    return Image.merge("RGB" if image.mode.startswith("RGB") else "L", image.split()[:-1])


def _whiten_key(rgb: Image.Image, key: Any) -> Image.Image:  # noqa: ANN401 - a file's word
    """Paint the colour that PNG's tRNS chunk declares transparent white."""
    colour = np.atleast_1d(np.asarray(key))
    if colour.dtype.kind not in "iu" or colour.size not in (1, 3):
        return rgb
    if colour.max() > 255:  # of a 16-bit file, of whose pixels Pillow keeps the high byte
        colour = colour >> 8
    pixels = np.array(rgb)
    pixels[(pixels == colour).all(axis=-1)] = 255
    return Image.fromarray(pixels)


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    """Scale grey of 16 or 32 bits to 8 bits; ``convert`` would clip it at 255."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode.startswith("I;16"):
        bits = int(tags.get(_BITS_PER_SAMPLE_TAG, (16,))[0])  # 12-bit TIFF comes as I;16 unscaled
        grey = (values >> (bits - 8)).astype(np.uint8)
    elif image.mode == "I" and image.format == "PPM":
        grey = (values >> 8).astype(np.uint8)  # Pillow scales every depth to 16 bits
    else:
        grey = _stretch(values.astype(np.float32), unit=image.mode == "F")
    if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:  # Pillow inverts only up to 8 bits
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey = np.where(values == key, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _stretch(
    values: np.ndarray[Any, np.dtype[np.float32]], *, unit: bool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Map values without a declared range to 8 bits: see ``orient_rgb``."""
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if low >= 0 and high <= 65535:
        tops = (1.0, 255.0, 65535.0) if unit else (255.0, 65535.0)
        low, high = 0.0, next(top for top in tops if high <= top)
    kept = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    eight_bit: np.ndarray[Any, np.dtype[np.uint8]]
    eight_bit = np.rint((kept - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return eight_bit
