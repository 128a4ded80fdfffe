"""The file formats that are read: Pillow's plugin for each, and the removal of metadata.

None of the plugins runs another program (EPS runs Ghostscript) or accepts a file without a signature
(TGA takes anything). They are called directly rather than by ``Image.open``, which has warnings on sizes
of its own and hides why a plugin refused a file.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

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
from iqa_core.images import boxes, jpeg, png, tiff, webp

__all__ = ["PLUGINS", "open_format", "without_metadata"]


class _TiffImageFile(TiffImageFile):
    """A TIFF plugin that leaves the check of the size to ``decode``.

    Pillow's own plugin checks again when it loads, and warns above half of its limit. A filter on
    warnings would silence that, too, but is not thread-safe.
    """

    def load_prepare(self) -> None:
        """Allocate the image, which is what ``super()`` does behind its check."""
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        super().load_prepare()


#: Format, as :func:`iqa_core.images.sniff.sniff` names it -> Pillow's plugin for it.
PLUGINS: dict[str, Callable[[BytesIO], ImageFile]] = {
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

#: Functions that verify a file beyond Pillow's own checks and drop its metadata: Pillow would parse
#: it, and refuses images whose metadata is damaged.
_WITHOUT_METADATA: dict[str, Callable[[bytes], tuple[bytes, dict[str, Any]]]] = {
    "AVIF": boxes.avif_without_metadata,
    "JPEG": jpeg.without_metadata,
    "JPEG 2000": boxes.jpeg2000_without_metadata,
    "PNG": png.without_metadata,
    "TIFF": tiff.without_metadata,
    "WebP": webp.without_metadata,
}


def open_format(name: str, stream: BytesIO) -> ImageFile:
    """Read the header of a file of a known format.

    Raises:
        ImageError: With status ``unsupported``, if the format needs a plugin that is not installed.
    """
    return (_heif_plugin() if name == "HEIC" else PLUGINS[name])(stream)


def without_metadata(name: str, data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Verify a file as far as its format allows, and remove its metadata.

    Returns:
        The file, and entries for Pillow's ``info`` that hold the orientation.

    Raises:
        ImageError: If the file is damaged.
    """
    verify = _WITHOUT_METADATA.get(name)
    return (data, {}) if verify is None else verify(data)


def _heif_plugin() -> Callable[[BytesIO], ImageFile]:
    """Import pillow-heif's plugin on first use, without registering it for the whole process."""
    try:
        from pillow_heif import HeifImageFile  # optional, and slow to import
    except ImportError:
        raise ImageError(
            Status.UNSUPPORTED, "HEIC needs a plugin: pip install pillow-heif"
        ) from None
    factory: Callable[[BytesIO], ImageFile] = HeifImageFile
    return factory
