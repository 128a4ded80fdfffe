"""Decodes images to oriented RGB pixels, at the model's input size or as stored.

Runs in light decode workers, so it imports numpy and Pillow and no deep-learning library.

``exact`` repeats, bit for bit, the inference transform of open_clip (``image_transform_v2``, which
is torchvision's Resize and CenterCrop or timm's ResizeKeepRatio and CenterCropOrPad on Pillow
images, https://github.com/mlfoundations/open_clip), up to and without ToTensor and Normalize.
``fast`` computes the same crop of the same resized image from a cheaper start. Who does what:

* :mod:`iqa_core.images.turbo` (simplejpeg) decodes 8-bit grey and three-colour JPEGs that show no sign
  of damage, reduced by 2, 4 or 8 while twice the wanted size is left; at native resolution too, where its
  pixels are those of Pillow.
* Pillow opens all other files, with the rules of :mod:`iqa_core.images.jpeg` and its neighbours for
  what is damaged, and all files of ``exact``.
* :mod:`iqa_core.images.resample` (cykooz.resizer) resizes whatever ``fast`` decoded, before it is turned;
  Pillow resizes in ``exact``.

``benchmarks/decode.py`` prints what that gains and what it costs in pixel values. Both modes depend on the
version of Pillow: since 13, for example, it reduces tall images by height first and rounds differently.

What differs from opening the file with Pillow alone, as open_clip's users do:

* EXIF orientation is applied.
* Transparency is shown on white; Pillow's ``convert("RGB")`` shows the hidden colour.
* Grey of more than 8 bits is scaled to 8; Pillow's ``convert("RGB")`` clips it to white.
* Damage that the format itself can detect is an error: checksums, sizes and markers that don't fit, a
  file that is cut short; a JPEG also if its end was padded or closed by a marker.
* Damaged metadata never make an image fail: it is dropped before Pillow reads a file.
* An alpha channel that is zero throughout is ignored in formats in which it may be unused.
* A TIFF whose first picture is a thumbnail, as in raw camera files, is not read.

ICC profiles are ignored, as in CLIP's training pipelines and in open_clip's transform. A CMYK JPEG
is read as inverted whether or not it has Adobe's marker, as Pillow, OpenCV and browsers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from PIL.IcoImagePlugin import IcoImageFile

from iqa_core.errors import ImageError, Status
from iqa_core.images import icon, jpeg, png, turbo
from iqa_core.images.colour import orient, orient_rgb, orientation, orientation_of, to_rgb
from iqa_core.images.formats import PLUGINS, open_format, without_metadata
from iqa_core.images.resample import wrap_pixels
from iqa_core.images.resize import Box, Mode, Size, check_mode, draft_size, fit_crops, is_sideways
from iqa_core.images.sniff import sniff
from iqa_core.limits import DEFAULT_MAX_PIXELS
from iqa_core.preprocess import Preprocess

__all__ = ["Decoded", "check_pixels", "decode_image", "prepare_image"]

_WORDS_FOR_UNREADABLE = re.compile(
    "unknown pixel mode|cannot handle|unsupported|not supported|not available|unable to determine",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)  # eq: == on arrays is no truth value
class Decoded:
    """A decoded image, as a model's input.

    Attributes:
        pixels: Shape (H, W, 3), uint8, RGB in [0, 255], C-contiguous and writable; (N, H, W, 3) if several
            views were asked for.
        width: Width in pixels of the stored image after orientation, before any resize.
        height: Height in pixels, likewise.
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    width: int
    height: int


def decode_image(
    data: bytes,
    preprocess: Preprocess | None = None,
    *,
    mode: Mode = "fast",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    crops: int = 1,
) -> Decoded:
    """Decode one image file: its first frame or page, oriented, RGB, resized for a tower.

    Reads JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM, ICO, and HEIC if ``pillow-heif``
    is installed. Safe to call from threads: it changes no state of Pillow's.

    Args:
        data: The encoded file.
        preprocess: Size, filter and resize mode of the tower; None keeps the stored resolution.
        mode: ``exact`` equals open_clip's transform of the oriented RGB image bit for bit, except
            for extreme aspect ratios: see ``prepare_image``. ``fast`` gives the same crop from
            JPEG's scaled decoding and a resize with vector instructions. Without ``preprocess``
            the two are the same.
        max_pixels: Limit on width x height, checked against the header.
        crops: Number N of views (:mod:`iqa_core.images.crops`); more than one need ``preprocess``.

    Returns:
        Pixels of shape (height, width, 3) of the tower, or of the stored image if ``preprocess``
        is None; with several views, they are the first dimension.

    Raises:
        ImageError: With status ``empty`` (zero bytes), ``unsupported`` (no image, or not in a form
            that is read here), ``decode_error`` (damaged or cut short) or ``too_large``. Damage
            that a format can't show is no error: changed bytes within the data of most
            formats without checksums, a progressive JPEG cut after its first scan and closed
            again, or a WebP, AVIF, HEIC or uncompressed file whose end was filled with zeros.
        ValueError: If ``mode`` is neither ``fast`` nor ``exact``.
    """
    check_mode(mode)
    if not data:
        raise ImageError(Status.EMPTY, "the file is empty (zero bytes)")
    name = sniff(data)
    with _pillow_errors(f"{name} image"):
        if name == "ICO":
            bitmap = icon.embedded_png(data)
            if bitmap is None:
                return _decode_icon(data, preprocess, mode, max_pixels, crops)
            name, data = "PNG", bitmap
        if name == "JPEG" and mode == "fast":
            decoded = _decode_common_jpeg(data, preprocess, max_pixels, crops)
            if decoded is not None:
                return decoded
        data, info = without_metadata(name, data)
        stream = BytesIO(data)
        image = open_format(name, stream)
        image.info.update(info)
        check_pixels(image.size, max_pixels)
        stored = image.size  # draft() changes image.size
        start = stream.tell()  # of a JPEG's entropy-coded data
        box: Box = (0, 0, *stored)
        wanted = stored
        if preprocess is not None and mode == "fast":
            wanted = draft_size(image.size, orientation(image), preprocess, crops)
            box = jpeg.draft(image, wanted)
        image.load()
        if name == "JPEG":
            jpeg.check_end(image, data, start, wanted)
        elif name == "PNG":
            png.check_rows(data, image)
        return _prepare(image, stored, box, preprocess, mode, crops)


def prepare_image(
    image: Image.Image,
    preprocess: Preprocess | None = None,
    *,
    mode: Mode = "fast",
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Decoded:
    """Orient an opened Pillow image, turn it into RGB and resize it for a tower.

    Does not change ``image``, except that Pillow loads it. Therefore ``fast`` does without JPEG's
    scaled decoding here and is closer to ``exact`` than ``decode_image`` is.

    Args:
        image: An image of any mode, opened from a file or made in memory.
        preprocess: As in ``decode_image``.
        mode: As in ``decode_image``. ``exact`` differs from open_clip in two cases: where the
            resized image would have more than 2**25 pixels before its crop (at 224 x 224, a side
            ratio above 668), only the crop is computed, and of a hundred values less than one
            differs, by 1 or 2; and where a side would round to nothing, so that open_clip fails,
            it is one pixel.
        max_pixels: Limit on width x height.

    Returns:
        As ``decode_image``.

    Raises:
        ImageError: With status ``decode_error``, ``unsupported`` or ``too_large``.
        ValueError: If ``mode`` is neither ``fast`` nor ``exact``.
    """
    check_mode(mode)
    with _pillow_errors("image"):
        check_pixels(image.size, max_pixels)
        image.load()
        return _prepare(image, image.size, (0, 0, *image.size), preprocess, mode)


def _decode_common_jpeg(
    data: bytes, preprocess: Preprocess | None, max_pixels: int, crops: int
) -> Decoded | None:
    """Decode a JPEG of a common kind that shows no sign of damage; None leaves it to Pillow."""
    header = jpeg.read_header(data)
    frame = jpeg.common_frame(header)
    if frame is None:
        return None
    size = frame.width, frame.height
    check_pixels(size, max_pixels)
    turn = orientation_of(header.info)
    scale, colours = 1, "RGB"
    if preprocess is not None:
        scale = turbo.scale_for(size, draft_size(size, turn, preprocess, crops))
        colours = "GRAY" if frame.components == 1 else "RGBX"
    pixels = turbo.decode(data, size, scale, colours)
    if pixels is None:
        return None
    jpeg.check_markers(data, header.scan)
    width, height = size[::-1] if is_sideways(turn) else size
    if preprocess is not None:
        box = (0, 0, size[0] / scale, size[1] / scale)
        image = wrap_pixels(pixels)
        pixels = _views(image, turn, (width, height), box, preprocess, "fast", crops)
    elif turn != 1:
        pixels = np.array(orient(Image.fromarray(pixels), turn))
    return Decoded(pixels, width, height)


def _decode_icon(
    data: bytes, preprocess: Preprocess | None, mode: Mode, max_pixels: int, crops: int
) -> Decoded:
    """Decode an icon whose largest picture is a bitmap, which Pillow does as it opens it."""
    check_pixels(icon.bitmap_size(data), max_pixels)
    opened = PLUGINS["ICO"](BytesIO(data))
    image = icon.with_mask(opened) if isinstance(opened, IcoImageFile) else opened
    return _prepare(image, image.size, (0, 0, *image.size), preprocess, mode, crops)


def check_pixels(size: Size, max_pixels: int) -> None:
    """Raise ImageError if a width and a height are together more than a limit on pixels."""
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            Status.TOO_LARGE,
            f"{width} x {height} = {width * height:,} pixels are more than the limit of "
            f"{max_pixels:,}: raise it with --max-pixels",
        )


@contextmanager
def _pillow_errors(what: str) -> Iterator[None]:
    """Convert any exception that a hostile file makes Pillow raise to an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageError(Status.TOO_LARGE, f"{what} is too large: {_reason(error)}") from error
    except Exception as error:
        reason = _reason(error)
        if _WORDS_FOR_UNREADABLE.search(reason):
            message = f"{what} is of a kind that is not read here: {reason}"
            raise ImageError(Status.UNSUPPORTED, message) from error
        message = f"{what} is damaged or cut short: {reason}"
        raise ImageError(Status.DECODE_ERROR, message) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _prepare(
    image: Image.Image,
    stored: Size,
    box: Box,
    preprocess: Preprocess | None,
    mode: Mode,
    crops: int = 1,
) -> Decoded:
    """Orient, convert and resize a loaded image.

    Args:
        image: Loaded, at the stored size or drafted to a smaller one.
        stored: Width and height in the file, before orientation.
        box: The part of ``image`` that shows the stored image, in pixels of ``image``.
        preprocess: Of the model; None keeps size and aspect ratio.
        mode: ``fast`` or ``exact``.
        crops: Number of views.
    """
    turn = orientation(image)
    width, height = stored[::-1] if is_sideways(turn) else stored
    if preprocess is None:
        return Decoded(np.array(orient_rgb(image)), width, height)
    pixels = _views(to_rgb(image), turn, (width, height), box, preprocess, mode, crops)
    return Decoded(pixels, width, height)


def _views(
    image: Image.Image,
    turn: int,
    size: Size,
    box: Box,
    preprocess: Preprocess,
    mode: Mode,
    crops: int,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the pixels of one view, (H, W, 3), or of several, (N, H, W, 3)."""
    views = fit_crops(image, turn, size, box, preprocess, mode, crops)
    return np.array(views[0]) if crops == 1 else np.stack([np.asarray(view) for view in views])
