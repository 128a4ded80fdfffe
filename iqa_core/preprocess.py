"""How images are resized for a model; without any model code, so that decode workers can import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """How images are resized and normalised for an image encoder, as in open_clip's ``PreprocessCfg``.

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
