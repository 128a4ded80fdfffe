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
* A file that is cut short is an error; a JPEG also if its end was padded or closed by a marker.

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
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoFile, IcoImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from iqa_core.schema import ImageError, Preprocess, Status

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
_SIDEWAYS = 5  # from this orientation on, width and height change places

_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_WHITE_IS_ZERO = 0

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
            that Pillow passes over is no error: a JPEG changed in the middle, a progressive JPEG
            cut after its first scan and closed again, or a WebP, AVIF or HEIC whose end was filled
            with zeros, passes as an image.
        ValueError: If ``mode`` is neither ``fast`` nor ``exact``.
    """
    _check_mode(mode)
    if not data:
        raise ImageError(Status.EMPTY, "the file is empty (zero bytes)")
    name = _sniff(data)
    with _pillow_errors(f"{name} image"):
        image = _open(name, data, max_pixels)
        _check_pixels(image.size, max_pixels)
        stored = image.size  # draft() changes image.size
        scan = _jpeg_scan_start(image)
        box: Box = (0, 0, *stored)
        wanted = stored
        if preprocess is not None and mode == "fast":
            wanted = _wanted_size(image, preprocess)
            box = _draft(image, wanted)
        image.load()
        if scan is not None:
            _check_jpeg_end(image, data, scan, wanted)
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
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    return rgb.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else rgb


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

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\1\0", "ICO"),
    (b"\xffO\xffQ", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
)
_PPM = re.compile(rb"P[1-6f]\s")
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # "BM" alone also begins plain text
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_GENERIC_BRANDS = {b"mif1", b"msf1"}


def _sniff(data: bytes) -> str:
    """Return the format that the first bytes announce; raise ``unsupported`` if there is none."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if _PPM.match(data):
        return "PPM"
    if data[4:8] == b"ftyp" and (kind := _sniff_heif(data)):
        return kind
    raise ImageError(
        Status.UNSUPPORTED, f"no image in a format that is read here: begins with {data[:16]!r}"
    )


def _sniff_heif(data: bytes) -> str | None:
    """Tell AVIF from HEIC, which share a container and its generic brands."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12]} | {data[i : i + 4] for i in range(16, end, 4)}
    if data[8:12] in _HEIF_BRANDS:
        return "HEIC"
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & (_HEIF_BRANDS | _GENERIC_BRANDS) else None


def _open(name: str, data: bytes, max_pixels: int) -> ImageFile:
    """Read the header of a file of a known format."""
    if name == "ICO":
        _check_pixels(_icon_size(data), max_pixels)
    plugin = _heif_plugin() if name == "HEIC" else _PLUGINS[name]
    return plugin(BytesIO(data))


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


def _icon_size(data: bytes) -> Size:
    """Return the size of an icon's largest image, whose pixels Pillow decodes as it opens it."""
    entry = IcoFile(BytesIO(data)).entry[0]
    payload = data[entry.offset :]
    if _SIGNATURES[1][0] == payload[:8]:
        return PngImageFile(BytesIO(payload)).size
    width, height_with_mask = DibImageFile(BytesIO(payload)).size
    return width, height_with_mask // 2


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


# Damage that libjpeg repairs in silence -----------------------------------------------------------

_END_OF_IMAGE = b"\xff\xd9"
_MID_GREY = 128  # what libjpeg paints where the data ended
_ANY_DATA = bytes(range(1, 255))  # no 0xFF, with which a marker begins
#: Data for a block that has none. The restart markers are for files that use them: a decoder that
#: waits for a certain one skips everything else.
_FILLER = _ANY_DATA + b"".join(bytes([0xFF, 0xD0 + i]) + _ANY_DATA for i in range(8))


def _jpeg_scan_start(image: ImageFile) -> int | None:
    """Return where the entropy-coded data of a just opened JPEG begin, None for other formats."""
    if isinstance(image, JpegImageFile) and image.fp is not None:
        return image.fp.tell()
    return None


def _check_jpeg_end(image: ImageFile, data: bytes, scan: int, wanted: Size) -> None:
    """Raise if the JPEG stops before its last block.

    Pillow notices a file that just stops. It does not notice one whose missing part was filled
    with zeros (a preallocated download), nor one that was closed by an end marker: libjpeg then
    paints the rest grey and only warns, and Pillow drops its warnings. Grey in the last pixel is
    therefore put to the test: bytes added in front of the end marker change nothing in a complete
    image, since no block is left to take them, but do change one that was cut short.
    """
    end = data.find(_END_OF_IMAGE, scan)
    if end < 0:
        raise ImageError(Status.DECODE_ERROR, "JPEG image is cut short: it has no end marker")
    last = image.getpixel((image.width - 1, image.height - 1))
    if last not in (_MID_GREY, (_MID_GREY,) * 3):
        return
    again = JpegImageFile(BytesIO(data[:end] + _FILLER + data[end:]))
    _draft(again, wanted)
    if again.tobytes() != image.tobytes():
        raise ImageError(Status.DECODE_ERROR, "JPEG image is cut short: the rest of it is grey")


# Colours ------------------------------------------------------------------------------------------


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF data are damaged, as viewers do."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # struct.error, SyntaxError, ...: no reason to lose a whole photograph
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to RGB, on white where it is transparent."""
    if image.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(image)
    key = image.info.get("transparency")
    if key is not None and image.mode in ("1", "L", "RGB"):
        return _whiten_key(image.convert("RGB"), key)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts La to nothing else
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or (
        image.mode == "P" and image.has_transparency_data
    ):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


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
    orientation = _orientation(image)
    box = _orient_box(box, image.size, orientation)
    width, height = stored[::-1] if orientation >= _SIDEWAYS else stored
    rgb = orient_rgb(image)
    if preprocess is not None:
        resize = _resize_fast if mode == "fast" else _resize_exact
        rgb = _fit(rgb, (width, height), box, preprocess, resize)
    return Decoded(np.array(rgb), width, height)


def _wanted_size(image: ImageFile, preprocess: Preprocess) -> Size:
    """Return the size, before orientation, below which ``fast`` must not decode an image."""
    sideways = _orientation(image) >= _SIDEWAYS
    size = image.size[::-1] if sideways else image.size
    width, height = (_DRAFT_MARGIN * side for side in _resized_size(size, preprocess))
    return (height, width) if sideways else (width, height)


def _draft(image: ImageFile, wanted: Size) -> Box:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that is enough; return where the image then is.

    A side that is no multiple of the scale ends within the last decoded pixel, so the box is
    fractional; without it the image would be stretched by up to 7 stored pixels. HEIC's plugin
    has a ``draft`` too, which may take another picture for it, the embedded thumbnail.
    """
    drafted = image.draft(None, wanted) if isinstance(image, JpegImageFile) else None
    return (0, 0, *image.size) if drafted is None else drafted[1]


def _orient_box(box: Box, size: Size, orientation: int) -> Box:
    """Return where ``box`` of an image of ``size`` lies after the orientation is applied."""
    left, top, right, bottom = box
    if orientation in (2, 3, 7, 8):
        left, right = size[0] - right, size[0] - left
    if orientation in (3, 4, 6, 7):
        top, bottom = size[1] - bottom, size[1] - top
    return (top, left, bottom, right) if orientation >= _SIDEWAYS else (left, top, right, bottom)


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
