"""Encoded bytes to oriented RGB pixels, at the tower's size or as stored.

Runs in light decode workers, so it imports numpy and Pillow and no deep-learning library.

``exact`` repeats, bit for bit, the inference transform of open_clip (``image_transform_v2``, which
is torchvision's Resize and CenterCrop or timm's ResizeKeepRatio and CenterCropOrPad on Pillow
images, https://github.com/mlfoundations/open_clip), up to and without ToTensor and Normalize.
``fast`` computes the same crop of the same resized image from a cheaper start: JPEG's own scaled
decoding, and box averages before a strong reduction. ``benchmarks/decode.py`` prints what that
gains and what it costs in pixel values. The bits of both are those of the installed Pillow:
since 13, for one, it reduces tall images by height first and rounds differently.

What differs from opening the file with Pillow alone, as open_clip's users do:

* EXIF orientation is applied.
* Transparency is shown on white; Pillow's ``convert("RGB")`` shows the hidden colour.
* Grey of more than 8 bits is scaled to 8; Pillow's ``convert("RGB")`` clips it to white.
* Damage that the format itself can tell is an error: checksums, sizes and markers that don't fit, a
  file that is cut short; a JPEG also if its end was padded or closed by a marker.
* Metadata never cost a picture: what pixels don't need is dropped before Pillow reads a file.
* An alpha channel that is zero throughout is ignored in formats in which it may be unused.
* A TIFF whose first picture is a thumbnail, as in raw camera files, is not read.

ICC profiles are ignored, as in CLIP's training pipelines and in open_clip's transform. A CMYK JPEG
is read as inverted whether or not it has Adobe's marker, as Pillow, OpenCV and browsers do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from iqa_core.errors import ImageError, Status
from iqa_core.images import boxes, icon, jpeg, png, tiff, webp
from iqa_core.images.colour import orient_rgb, orientation
from iqa_core.images.sniff import sniff
from iqa_core.preprocess import Preprocess

__all__ = ["DEFAULT_MAX_PIXELS", "Decoded", "decode_image", "orient_rgb", "prepare_image"]

#: Where Pillow itself refuses to go on by default. It lets 108-megapixel phones and 150-megapixel
#: medium format pass, and keeps one decoded image (4 bytes per pixel in Pillow) below 720 MB.
DEFAULT_MAX_PIXELS = 178_956_970

#: ``fast`` decodes a JPEG to at least this many times the resized sides. On photographs of 3000
#: pixels, 1 was a third faster than 2 and more than three times as far from ``exact``.
_DRAFT_MARGIN = 2

#: ``fast`` averages blocks of pixels first if the rest is still a reduction by this much (see
#: ``reducing_gap`` of ``PIL.Image.Image.resize``).
_REDUCING_GAP = 3.0

#: The largest resized image, in pixels, that is made only to be cropped: 134 MB. Not derived from
#: ``max_pixels``, because an image's pixels must not depend on a limit that admits it.
_MAX_INTERMEDIATE = 2**25

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_SIDEWAYS = 5  # from this orientation on, width and height change places

_WORDS_FOR_UNREADABLE = re.compile(
    "unknown pixel mode|cannot handle|unsupported|not supported|not available|unable to determine",
    re.IGNORECASE,
)

Mode = Literal["fast", "exact"]
Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)  # eq: == on arrays is no truth value
class Decoded:
    """One image as a tower takes it.

    Attributes:
        pixels: Shape (H, W, 3), uint8, RGB in [0, 255], C-contiguous and writable.
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
) -> Decoded:
    """Decode one image file: its first frame or page, oriented, RGB, resized for a tower.

    Reads JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM, ICO, and HEIC if ``pillow-heif``
    is installed. Safe to call from threads: it changes no state of Pillow's.

    Args:
        data: The encoded file.
        preprocess: Size, filter and resize mode of the tower; None keeps the stored resolution.
        mode: ``exact`` equals open_clip's transform of the oriented RGB image bit for bit, except
            for extreme aspect ratios: see ``prepare_image``. ``fast`` gives the same crop from
            JPEG's scaled decoding. Without ``preprocess`` the two are the same.
        max_pixels: Limit on width x height, checked against the header.

    Returns:
        Pixels of shape (height, width, 3) of the tower, or of the stored image if ``preprocess``
        is None.

    Raises:
        ImageError: With status ``empty`` (zero bytes), ``unsupported`` (no image, or not in a form
            that is read here), ``decode_error`` (damaged or cut short) or ``too_large``. Damage
            that a format has no means to tell is no error: changed bytes within the data of most
            formats without checksums, a progressive JPEG cut after its first scan and closed
            again, or a WebP, AVIF, HEIC or uncompressed file whose end was filled with zeros.
        ValueError: If ``mode`` is neither ``fast`` nor ``exact``.
    """
    _check_mode(mode)
    if not data:
        raise ImageError(Status.EMPTY, "the file is empty (zero bytes)")
    name = sniff(data)
    with _pillow_errors(f"{name} image"):
        if name == "ICO":
            bitmap = icon.embedded_png(data)
            if bitmap is None:
                return _decode_icon(data, preprocess, mode, max_pixels)
            name, data = "PNG", bitmap
        data, info = _WITHOUT_METADATA.get(name, _unchanged)(data)
        stream = BytesIO(data)
        image = _open(name, stream)
        image.info.update(info)
        _check_pixels(image.size, max_pixels)
        stored = image.size  # draft() changes image.size
        start = stream.tell()  # of a JPEG's entropy-coded data
        box: Box = (0, 0, *stored)
        wanted = stored
        if preprocess is not None and mode == "fast":
            wanted = _wanted_size(image, preprocess)
            box = jpeg.draft(image, wanted)
        image.load()
        if name == "JPEG":
            jpeg.check_end(image, data, start, wanted)
        elif name == "PNG":
            png.check_rows(data, image)
        return _prepare(image, stored, box, preprocess, mode)


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
    _check_mode(mode)
    with _pillow_errors("image"):
        _check_pixels(image.size, max_pixels)
        image.load()
        return _prepare(image, image.size, (0, 0, *image.size), preprocess, mode)


# Opening ------------------------------------------------------------------------------------------


class _TiffImageFile(TiffImageFile):
    """A TIFF that leaves the judgement on its size to this module.

    Pillow's own checks again when it loads and warns from half of its limit on. A filter on
    warnings would be the other way to silence it, and is not safe in threads.
    """

    def load_prepare(self) -> None:
        """Allocate the image, which is what ``super()`` does behind its check."""
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        super().load_prepare()


#: The plugins that may see a file. None of them runs another program (EPS runs Ghostscript) or
#: accepts a file without a signature (TGA takes anything). They are called directly rather than by
#: ``Image.open``, which would warn of sizes by itself and hide why a plugin refused a file.
_PLUGINS: dict[str, Callable[[BytesIO], ImageFile]] = {
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "ICO": IcoImageFile,
    "JPEG": JpegImageFile,  # reads the first image of an MPO too
    "JPEG 2000": Jpeg2KImageFile,
    "PNG": PngImageFile,
    "PPM": PpmImageFile,
    "TIFF": _TiffImageFile,
    "WebP": WebPImageFile,
}

#: What verifies a file as far as its format allows and Pillow does not, and drops its metadata, which
#: Pillow would parse: it refuses a picture for them. An orientation goes to ``info``.
_WITHOUT_METADATA: dict[str, Callable[[bytes], tuple[bytes, dict[str, Any]]]] = {
    "AVIF": boxes.avif_without_metadata,
    "JPEG": jpeg.without_metadata,
    "JPEG 2000": boxes.jpeg2000_without_metadata,
    "PNG": png.without_metadata,
    "TIFF": tiff.without_metadata,
    "WebP": webp.without_metadata,
}


def _open(name: str, stream: BytesIO) -> ImageFile:
    """Read the header of a file of a known format."""
    return (_heif_plugin() if name == "HEIC" else _PLUGINS[name])(stream)


def _unchanged(data: bytes) -> tuple[bytes, dict[str, Any]]:
    return data, {}


def _decode_icon(
    data: bytes, preprocess: Preprocess | None, mode: Mode, max_pixels: int
) -> Decoded:
    """Decode an icon whose largest picture is a bitmap, which Pillow does as it opens it."""
    _check_pixels(icon.bitmap_size(data), max_pixels)
    opened = _PLUGINS["ICO"](BytesIO(data))
    image = icon.with_mask(opened) if isinstance(opened, IcoImageFile) else opened
    return _prepare(image, image.size, (0, 0, *image.size), preprocess, mode)


def _heif_plugin() -> Callable[[BytesIO], ImageFile]:
    """Import pillow-heif's plugin on first need, without registering it for the whole process."""
    try:
        from pillow_heif import HeifImageFile  # optional, and slow to import
    except ImportError:
        raise ImageError(
            Status.UNSUPPORTED, "HEIC needs a plugin: pip install pillow-heif"
        ) from None
    factory: Callable[[BytesIO], ImageFile] = HeifImageFile
    return factory


def _check_mode(mode: str) -> None:
    if mode not in ("fast", "exact"):
        raise ValueError(f"mode ({mode!r}) must be 'fast' or 'exact'")


def _check_pixels(size: Size, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            Status.TOO_LARGE,
            f"{width} x {height} = {width * height:,} pixels are more than the limit of "
            f"{max_pixels:,}: raise it with --max-pixels",
        )


@contextmanager
def _pillow_errors(what: str) -> Iterator[None]:
    """Turn whatever a hostile file makes Pillow raise into an ImageError."""
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


# Geometry -----------------------------------------------------------------------------------------


def _prepare(
    image: Image.Image, stored: Size, box: Box, preprocess: Preprocess | None, mode: Mode
) -> Decoded:
    """Orient, convert and resize a loaded image.

    Args:
        image: Loaded, at the stored size or drafted to a smaller one.
        stored: Width and height in the file, before orientation.
        box: The part of ``image`` that shows the stored image, in pixels of ``image``.
        preprocess: What the tower wants; None for nothing.
        mode: ``fast`` or ``exact``.
    """
    turn = orientation(image)
    box = _orient_box(box, image.size, turn)
    width, height = stored[::-1] if turn >= _SIDEWAYS else stored
    rgb = orient_rgb(image)
    if preprocess is not None:
        resize = _resize_fast if mode == "fast" else _resize_exact
        rgb = _fit(rgb, (width, height), box, preprocess, resize)
    return Decoded(np.array(rgb), width, height)


def _wanted_size(image: ImageFile, preprocess: Preprocess) -> Size:
    """Return the size, before orientation, below which ``fast`` must not decode an image."""
    sideways = orientation(image) >= _SIDEWAYS
    size = image.size[::-1] if sideways else image.size
    width, height = (_DRAFT_MARGIN * side for side in _resized_size(size, preprocess))
    return (height, width) if sideways else (width, height)


def _orient_box(box: Box, size: Size, turn: int) -> Box:
    """Return where ``box`` of an image of ``size`` lies after an orientation is applied."""
    left, top, right, bottom = box
    if turn in (2, 3, 7, 8):
        left, right = size[0] - right, size[0] - left
    if turn in (3, 4, 6, 7):
        top, bottom = size[1] - bottom, size[1] - top
    return (top, left, bottom, right) if turn >= _SIDEWAYS else (left, top, right, bottom)


def _resized_size(size: Size, preprocess: Preprocess) -> Size:
    """Return the size, in pixels, after open_clip's resize and before its crop or padding.

    Three ways of rounding, as in open_clip: nothing to round for ``squash``, torchvision's
    truncation for ``shortest`` and a square tower, timm's ``round`` (half to even) for the rest.
    """
    width, height = size
    target_height, target_width = preprocess.size
    if preprocess.resize_mode == "squash":
        return target_width, target_height
    if preprocess.resize_mode == "shortest" and target_height == target_width:
        longer = int(target_width * max(size) / min(size))
        return (target_width, longer) if width <= height else (longer, target_height)
    choose = min if preprocess.resize_mode == "shortest" else max
    ratio = choose(height / target_height, width / target_width)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _filter(preprocess: Preprocess) -> Image.Resampling:
    """Return the tower's filter; open_clip drops it for ``shortest`` and a tower not square."""
    if preprocess.resize_mode == "shortest" and preprocess.size[0] != preprocess.size[1]:
        return Image.Resampling.BICUBIC
    return _FILTERS[preprocess.interpolation]


_Resize = Callable[[Image.Image, Box, Size, tuple[int, int, int, int], Image.Resampling], Any]


def _fit(
    rgb: Image.Image, size: Size, box: Box, preprocess: Preprocess, resize: _Resize
) -> Image.Image:
    """Resize and crop or pad to exactly the tower's size.

    Args:
        rgb: Oriented RGB image.
        size: Width and height from which the geometry follows: the stored ones, oriented.
        box: The part of ``rgb`` that shows the stored image.
        preprocess: What the tower wants.
        resize: How to compute a window of the resized image.
    """
    height, width = preprocess.size
    resized = _resized_size(size, preprocess)
    # Python's round is to even: torchvision's offset of a crop that can't be centred
    left = max(0, round((resized[0] - width) / 2))
    top = max(0, round((resized[1] - height) / 2))
    window = (left, top, left + min(width, resized[0]), top + min(height, resized[1]))
    fitted: Image.Image = resize(rgb, box, resized, window, _filter(preprocess))
    if fitted.size == (width, height):
        return fitted
    padded = Image.new("RGB", (width, height), (preprocess.fill_color,) * 3)
    padded.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
    return padded


def _resize_exact(
    rgb: Image.Image,
    box: Box,
    resized: Size,
    window: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Resize all, then crop: Pillow's ``box`` gives no identical bits, as it is a float32."""
    if resized[0] * resized[1] <= _MAX_INTERMEDIATE:
        return rgb.resize(resized, resample).crop(window)
    left, top, right, bottom = _source_box(box, resized, window)
    # only what the kernel reaches, so that the float32 counts from near by and loses little
    reach = [2 + math.ceil(2 * max(1, rgb.size[axis] / resized[axis])) for axis in (0, 1)]
    near = (
        max(0, math.floor(left) - reach[0]),
        max(0, math.floor(top) - reach[1]),
        min(rgb.width, math.ceil(right) + reach[0]),
        min(rgb.height, math.ceil(bottom) + reach[1]),
    )
    part = rgb.crop(near)
    spans = ((left - near[0], right - near[0]), (top - near[1], bottom - near[1]))
    # Pillow rounds between its two passes. From 13 on it chooses their order by the size, so for
    # a part it may choose another one than for the whole.
    reduces_tall = rgb.height > resized[1] > resized[0]
    for axis in (1, 0) if reduces_tall else (0, 1):
        size, part_box = list(part.size), [0.0, 0.0, *part.size]
        size[axis] = window[axis + 2] - window[axis]
        part_box[axis], part_box[axis + 2] = spans[axis]
        part = part.resize(size, resample, box=(part_box[0], part_box[1], part_box[2], part_box[3]))
    return part


def _resize_fast(
    rgb: Image.Image,
    box: Box,
    resized: Size,
    window: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Compute only what the crop keeps, and average blocks before a strong reduction."""
    return rgb.resize(
        (window[2] - window[0], window[3] - window[1]),
        resample,
        box=_source_box(box, resized, window),
        reducing_gap=_REDUCING_GAP,
    )


def _source_box(box: Box, resized: Size, window: tuple[int, int, int, int]) -> Box:
    """Return the part of the source, within ``box``, that ``window`` of the resized image shows."""
    x, y = (box[2] - box[0]) / resized[0], (box[3] - box[1]) / resized[1]
    return (
        box[0] + window[0] * x,
        box[1] + window[1] * y,
        min(box[2], box[0] + window[2] * x),
        min(box[3], box[1] + window[3] * y),
    )
