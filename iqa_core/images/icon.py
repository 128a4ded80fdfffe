"""ICO: the largest picture of an icon, which is a PNG or a bitmap with a mask."""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from PIL.BmpImagePlugin import DibImageFile
from PIL.IcoImagePlugin import IcoFile, IcoImageFile

from iqa_core.images import png

__all__ = ["bitmap_size", "embedded_png", "with_mask"]

_HEADER = 40  # bytes of a bitmap's header


def embedded_png(data: bytes) -> bytes | None:
    """Return the largest picture if it is a PNG, which is read as any other PNG then."""
    entry = IcoFile(BytesIO(data)).entry[0]
    payload = data[entry.offset :]
    return payload if payload.startswith(png.SIGNATURE) else None


def bitmap_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of the largest picture, a bitmap, without decoding it."""
    entry = IcoFile(BytesIO(data)).entry[0]
    width, height_with_mask = DibImageFile(BytesIO(data[entry.offset :])).size
    return width, height_with_mask // 2


def with_mask(image: IcoImageFile) -> Image.Image:
    """Show an icon of 32 bits whose alpha is zero everywhere by its mask, as Windows does.

    Such an icon was written for versions in which the fourth byte was unused.
    """
    entry = image.ico.entry[0]
    if entry.bpp != 32 or image.getextrema()[-1] != (0, 0):
        return image
    mask_row = (image.width + 31) // 32 * 4
    if entry.size < _HEADER + image.height * (4 * image.width + mask_row):
        return image.convert("RGB")  # it has no mask
    image.ico.entry[0] = entry._replace(bpp=24)  # a depth at which Pillow uses the mask
    return image.ico.frame(0)
