"""Words that the whole project shares: row statuses, column names, the preprocessing of a tower.

Imports no sibling, so that everything else can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = [
    "HEIGHT",
    "IDENTITY",
    "IMAGE",
    "IMAGE_ID",
    "MANIFEST_FILE",
    "MANIFEST_ROW",
    "URI",
    "WIDTH",
    "ImageError",
    "InputError",
    "Preprocess",
    "Status",
]

URI = "uri"
IMAGE = "image"
IMAGE_ID = "image_id"
MANIFEST_FILE = "manifest_file"
MANIFEST_ROW = "manifest_row"
WIDTH = "width"
HEIGHT = "height"

#: A row's identity is its place in the manifest: it is unique without anybody's help, and it
#: costs no memory to check (see ``iqa_core.rows``).
IDENTITY = (MANIFEST_FILE, MANIFEST_ROW)


class Status(StrEnum):
    """What became of one row. Every row of a manifest ends with exactly one of these."""

    OK = "ok"
    INVALID_ROW = "invalid_row"  # the row names no image: null or of a wrong type
    UNREADABLE = "unreadable"  # the manifest's own data of the row are damaged (--skip-damaged)
    DENIED = "denied"  # the URI is outside of what the run may read
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    NETWORK = "network"
    EMPTY = "empty"  # zero bytes
    UNSUPPORTED = "unsupported"  # not an image, or not in a form that this project reads
    DECODE_ERROR = "decode_error"  # an image, but damaged or cut short
    TOO_LARGE = "too_large"  # above the limit on bytes or pixels
    MODEL_ERROR = "model_error"


class InputError(ValueError):
    """Something that the user gave is wrong: one line that names the value, the limit and the fix.

    The command line prints it without a traceback and ends with status 1.
    """


class ImageError(Exception):
    """One image can't be scored. Becomes the row's ``status`` and ``error``; never stops a job.

    Args:
        status: What kind of failure it is.
        message: What happened, in one line.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(status, message)  # both in args, so that it survives pickling
        self.status = status
        self.message = " ".join(message.split())

    def __str__(self) -> str:
        """Return the message alone; the status has its own column."""
        return self.message


@dataclass(frozen=True)
class Preprocess:
    """How a tower wants its images, as open_clip's ``PreprocessCfg`` states it.

    Attributes:
        size: Height and width of the tower's input in pixels.
        mean: Channel means of RGB in [0, 1].
        std: Channel standard deviations of RGB in [0, 1].
        interpolation: Filter of the resize.
        resize_mode: ``shortest`` resizes the shorter side and crops the centre, ``longest`` resizes
            the longer side and pads, ``squash`` ignores the aspect ratio.
        fill_color: Padding value of ``longest``, 0 to 255.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0
