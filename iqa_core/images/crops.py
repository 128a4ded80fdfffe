"""Several views of one image at a model's resolution: all of it, and a grid of details.

Of a photograph of 12 megapixels, one view of 224 pixels shows a thirteenth of the detail in each
direction, too little to see a local blur. Of N = 1 + k^2 views, the first is the image as the model always
sees it; the others are k x k crops of the model's size, evenly spread from edge to edge, from the image
resized to k times the size of the first view. An image is never enlarged for its crops: if it is smaller,
they overlap.

What differs from multi-crop evaluation of classifiers (ten crops at one scale): crops are taken at a finer
scale than the first view, and do not depend on the image's size otherwise.
"""

from __future__ import annotations

from iqa_core.errors import InputError

__all__ = ["CROPS", "check_crops", "crop_windows", "grid_side", "zoom"]

#: The numbers of views that there are, and the side k of their grids.
CROPS = {1: 0, 5: 2, 10: 3, 17: 4, 26: 5}

Size = tuple[int, int]  # width, height
Window = tuple[int, int, int, int]  # left, top, right, bottom


def check_crops(crops: int, resolution: str = "model") -> None:
    """Check a number of views.

    Raises:
        InputError: If there is no grid for it, or images keep their own size.
    """
    if crops > 1 and resolution == "native":
        raise InputError(
            f"--crops {crops} are views at the model's resolution: leave out --resolution native or --crops"
        )
    if crops not in CROPS:
        *some, last = map(str, CROPS)
        raise InputError(
            argument="crops",
            value=crops,
            limit=f"{', '.join(some)} or {last}",
            fix="the whole image, and a grid of 2 x 2, 3 x 3, 4 x 4 or 5 x 5 crops",
        )


def grid_side(crops: int) -> int:
    """Return the side k of the grid; 0 without one."""
    return CROPS[crops]


def zoom(stored: Size, resized: Size, crops: int) -> float:
    """Return how many times the size of the first view the image has from which crops are cut.

    Args:
        stored: Width and height of the image, oriented.
        resized: Width and height of all of it at the scale of the first view.
        crops: Number of views.

    Returns:
        From 1 to k.
    """
    native = min(stored[0] / resized[0], stored[1] / resized[1])
    return max(1.0, min(native, float(grid_side(crops))))


def crop_windows(size: Size, crop: Size, crops: int) -> list[Window]:
    """Return where the crops of the grid lie, row by row.

    >>> crop_windows((100, 80), (40, 40), 5)
    [(0, 0, 40, 40), (60, 0, 100, 40), (0, 40, 40, 80), (60, 40, 100, 80)]

    Args:
        size: Width and height of the resized image.
        crop: Width and height of a crop; where the image is smaller, the crop is.
        crops: Number of views.
    """
    side = grid_side(crops)
    width, height = min(crop[0], size[0]), min(crop[1], size[1])
    steps = [place / (side - 1) for place in range(side)]
    lefts = [round((size[0] - width) * step) for step in steps]
    tops = [round((size[1] - height) * step) for step in steps]
    return [(left, top, left + width, top + height) for top in tops for left in lefts]
