"""Geometry of the resize to a model's input, and the backends that compute it.

``exact`` repeats, bit for bit, torchvision's Resize and CenterCrop or timm's ResizeKeepRatio and
CenterCropOrPad on Pillow images, as open_clip's ``image_transform_v2`` combines them
(https://github.com/mlfoundations/open_clip). ``fast`` computes the same crop of the same resized image,
and nothing outside of it, with vector instructions and before it is turned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Protocol

from PIL import Image

from iqa_core.images.colour import orient
from iqa_core.images.crops import crop_windows, grid_side, zoom
from iqa_core.images.resample import resize_part, unwrap

if TYPE_CHECKING:
    from iqa_core.preprocess import Preprocess

__all__ = [
    "MAX_INTERMEDIATE",
    "Box",
    "Mode",
    "Size",
    "check_mode",
    "crop_window",
    "draft_size",
    "filter_of",
    "fit",
    "fit_crops",
    "is_height_first",
    "is_sideways",
    "orient_box",
    "resized_size",
]

#: ``fast`` decodes a JPEG to at least this many times the resized sides. On photographs of 3000
#: pixels, 1 was a third faster than 2 and more than three times as far from ``exact``.
_DRAFT_MARGIN = 2

#: The largest resized image, in pixels, that is made only to be cropped: 134 MB. Not derived from
#: ``max_pixels``, because an image's pixels must not depend on a limit that admits it.
MAX_INTERMEDIATE = 2**25

#: EXIF orientations that are not their own inverse.
_INVERSE = {6: 8, 8: 6}

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Mode = Literal["fast", "exact"]
Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom
Window = tuple[int, int, int, int]  # likewise, in whole pixels


class Resizer(Protocol):
    """Computes a window of the resized image."""

    def __call__(
        self,
        image: Image.Image,
        turn: int,
        box: Box,
        resized: Size,
        window: Window,
        resample: Image.Resampling,
    ) -> Image.Image:
        """Return the window, oriented, of its own size.

        Args:
            image: As in :func:`fit`.
            turn: Likewise.
            box: Likewise.
            resized: Size of the whole resized image, oriented.
            window: The part of the resized image to compute, oriented.
            resample: Filter.
        """


def check_mode(mode: str) -> None:
    """Raise ValueError unless ``mode`` is one of :data:`Mode`."""
    if mode not in _RESIZERS:
        raise ValueError(f"mode ({mode!r}) must be 'fast' or 'exact'")


def fit(
    image: Image.Image, turn: int, size: Size, box: Box, preprocess: Preprocess, mode: Mode
) -> Image.Image:
    """Orient, resize, and crop or pad to exactly the tower's size.

    Args:
        image: RGB, not oriented; for ``fast`` also from
            :func:`iqa_core.images.resample.wrap_pixels`.
        turn: Its EXIF orientation, 1 to 8.
        size: Width and height from which the geometry follows: the stored ones, oriented.
        box: The part of ``image`` that shows the stored image.
        preprocess: Of the model.
        mode: How to compute the pixels.

    Returns:
        An RGB image of the tower's size.
    """
    resized = resized_size(size, preprocess)
    window = crop_window(resized, preprocess)
    fitted = _RESIZERS[mode](image, turn, box, resized, window, filter_of(preprocess))
    return _padded(fitted, preprocess)


def fit_crops(
    image: Image.Image,
    turn: int,
    size: Size,
    box: Box,
    preprocess: Preprocess,
    mode: Mode,
    crops: int,
) -> list[Image.Image]:
    """Return the views of an image: :func:`fit`, and the grid of :mod:`iqa_core.images.crops`.

    Args:
        image: As in :func:`fit`, and so are all but the last.
        turn: Likewise.
        size: Likewise.
        box: Likewise.
        preprocess: Likewise.
        mode: Likewise.
        crops: Number N of views.

    Returns:
        N RGB images of the tower's size.
    """
    views = [fit(image, turn, size, box, preprocess, mode)]
    if grid_side(crops):
        whole = resized_size(size, preprocess)
        scale = zoom(size, whole, crops)
        resized = round(whole[0] * scale), round(whole[1] * scale)
        for window in crop_windows(resized, preprocess.size[::-1], crops):
            view = _RESIZERS[mode](image, turn, box, resized, window, filter_of(preprocess))
            views.append(_padded(view, preprocess))
    return views


def _padded(fitted: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Return a view of the tower's size, with a border where it is smaller."""
    height, width = preprocess.size
    if fitted.size == (width, height):
        return fitted
    padded = Image.new("RGB", (width, height), (preprocess.fill_color,) * 3)
    padded.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
    return padded


def is_sideways(turn: int) -> bool:
    """Return whether an EXIF orientation swaps width and height."""
    return turn >= 5


def is_height_first(size: tuple[float, float], resized: Size) -> bool:
    """Return whether a resize reduces height before width: Pillow's own rule, since 13.

    It does where the height loses more than twice what the width does.

    Args:
        size: Width and height before the resize, oriented.
        resized: Likewise, after it.
    """
    fewer_rows = size[1] - resized[1]
    return fewer_rows > 0 and fewer_rows > 2 * (size[0] - resized[0])


def draft_size(size: Size, turn: int, preprocess: Preprocess, crops: int = 1) -> Size:
    """Return the size, before orientation, below which ``fast`` must not decode an image.

    Args:
        size: Width and height as stored, before orientation.
        turn: EXIF orientation, 1 to 8.
        preprocess: What the tower wants.
        crops: Number of views: those of a grid need more pixels.
    """
    sideways = is_sideways(turn)
    oriented = size[::-1] if sideways else size
    resized = resized_size(oriented, preprocess)
    margin = _DRAFT_MARGIN * zoom(oriented, resized, crops)
    width, height = (math.ceil(margin * side) for side in resized)
    return (height, width) if sideways else (width, height)


def orient_box(box: Box, size: Size, turn: int) -> Box:
    """Return where ``box`` of an image of ``size`` lies after EXIF orientation ``turn`` is applied."""
    left, top, right, bottom = box
    if turn in (2, 3, 7, 8):
        left, right = size[0] - right, size[0] - left
    if turn in (3, 4, 6, 7):
        top, bottom = size[1] - bottom, size[1] - top
    return (top, left, bottom, right) if is_sideways(turn) else (left, top, right, bottom)


def crop_window(resized: Size, preprocess: Preprocess) -> Window:
    """Return the part of the resized image that the tower sees, at most as large as its input."""
    height, width = preprocess.size
    # Python's round is to even: torchvision's offset of a crop that can't be centred
    left = max(0, round((resized[0] - width) / 2))
    top = max(0, round((resized[1] - height) / 2))
    return (left, top, left + min(width, resized[0]), top + min(height, resized[1]))


def resized_size(size: Size, preprocess: Preprocess) -> Size:
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


def filter_of(preprocess: Preprocess) -> Image.Resampling:
    """Return the tower's filter; open_clip drops it for ``shortest`` and a tower not square."""
    if preprocess.resize_mode == "shortest" and preprocess.size[0] != preprocess.size[1]:
        return Image.Resampling.BICUBIC
    return _FILTERS[preprocess.interpolation]


def _resize_exact(
    image: Image.Image,
    turn: int,
    box: Box,
    resized: Size,
    window: Window,
    resample: Image.Resampling,
) -> Image.Image:
    """Resize all, then crop: Pillow's ``box`` gives no identical bits, as it is a float32."""
    rgb, box = orient(image, turn), orient_box(box, image.size, turn)
    if resized[0] * resized[1] <= MAX_INTERMEDIATE:
        return rgb.resize(resized, resample).crop(window)
    left, top, right, bottom = _source_box(box, resized, window)
    # only what the kernel reaches, so that the float32 coordinates are small and lose little
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
    image: Image.Image,
    turn: int,
    box: Box,
    resized: Size,
    window: Window,
    resample: Image.Resampling,
) -> Image.Image:
    """Compute only what the crop keeps, and turn that rather than the image.

    Enlarging is left to Pillow: coefficients of 16 bits lose most there, and there is little to gain. Not
    where rows are cut off, from which Pillow would take the order of its passes.
    """
    sideways = is_sideways(turn)
    width, height = box[2] - box[0], box[3] - box[1]
    if sideways:
        width, height = height, width
    size = (window[2] - window[0], window[3] - window[1])
    if size[1] == resized[1] and (width < resized[0] or height < resized[1]):
        rgb, box = orient(unwrap(image), turn), orient_box(box, image.size, turn)
        return rgb.resize(size, resample, box=_source_box(box, resized, window))
    height_first = is_height_first((width, height), resized)
    left, top, right, bottom = orient_box(window, resized, _INVERSE.get(turn, turn))
    stored = resized[::-1] if sideways else resized
    part = resize_part(
        image,
        _source_box(box, stored, (left, top, right, bottom)),
        size[::-1] if sideways else size,
        resample,
        height_first=height_first is not sideways,
    )
    return orient(unwrap(part), turn)


def _source_box(box: Box, resized: Size, window: Box) -> Box:
    """Return the part of the source, within ``box``, that ``window`` of the resized image shows."""
    x, y = (box[2] - box[0]) / resized[0], (box[3] - box[1]) / resized[1]
    return (
        box[0] + window[0] * x,
        box[1] + window[1] * y,
        min(box[2], box[0] + window[2] * x),
        min(box[3], box[1] + window[3] * y),
    )


#: Backend of each mode.
_RESIZERS: dict[str, Resizer] = {"fast": _resize_fast, "exact": _resize_exact}
