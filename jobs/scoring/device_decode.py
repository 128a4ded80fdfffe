"""Blocks of encoded JPEGs to blocks of pixels, in the scoring actors: ``--decode gpu``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from iqa_core.columns import HEIGHT, WIDTH
from iqa_core.errors import ImageError, Status
from iqa_core.images.encoded import EncodedJpeg
from iqa_core.scoring.device_jpeg import DeviceDecoder

from .isolation import Isolated, Watchdog, attempt
from .pixels import PixelBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .pixels import EncodedBlock

__all__ = ["decoded_block"]


def decoded_block(
    block: EncodedBlock, decoder: DeviceDecoder, device: str, seconds: float
) -> PixelBlock:
    """Decode the JPEGs of a block.

    After an attempt that ended its process, perhaps by decoding, each is decoded on the CPU in a child
    process, so that only the image that crashes or hangs becomes a row with an error.

    Args:
        block: The block.
        decoder: Decodes JPEGs.
        device: Such as ``cuda``.
        seconds: Time limit on the block, and on one image where each is decoded alone.

    Returns:
        The block with its pixels in one tensor, (M, H, W, 3) uint8, on the device if it decoded one of
        them; rows of images that could not be decoded have their status and error.

    Raises:
        torch.AcceleratorError: If the device itself failed.
    """
    encoded = [image for image in block.images if isinstance(image, EncodedJpeg)]
    found = iter(_decode(encoded, decoder, device, seconds))
    pixels: list[torch.Tensor] = []
    places: list[int] = []
    errors: dict[int, ImageError] = {}
    for place, image in zip(block.places.tolist(), block.images, strict=True):
        each = next(found) if isinstance(image, EncodedJpeg) else image
        if isinstance(each, ImageError):
            errors[place] = each
            continue
        places.append(place)
        pixels.append(torch.from_numpy(np.array(each)) if isinstance(each, np.ndarray) else each)
    return PixelBlock(
        rows=_with_errors(block.rows, errors),
        places=np.asarray(places, dtype=np.int64),
        pixels=_together(pixels, decoder.preprocess.size),
    )


def _decode(
    images: Sequence[EncodedJpeg], decoder: DeviceDecoder, device: str, seconds: float
) -> Sequence[torch.Tensor | np.ndarray | ImageError]:
    if not attempt():
        with closing(Watchdog(seconds)) as watchdog:
            return watchdog.call(lambda _: decoder.decode(images, device), b"")
    found: list[torch.Tensor | np.ndarray | ImageError] = []
    with closing(Isolated(decoder.on_cpu, seconds)) as guard:
        for image in images:
            try:
                found.append(guard.call(decoder.on_cpu, image.data.tobytes()))
            except ImageError as error:  # it crashed, or took too long
                found.append(error)
    return found


@torch.inference_mode()  # as the tower's own tensors are, so that a compiled one takes it
def _together(pixels: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Return images as (M, H, W, 3) uint8, on the device if one of them is there."""
    if not pixels:
        return torch.empty((0, *size, 3), dtype=torch.uint8)
    devices = {image.device for image in pixels}
    if len(devices) == 1:
        return torch.stack(list(pixels))
    device = next(each for each in devices if each.type != "cpu")
    whole = torch.empty((len(pixels), *size, 3), dtype=torch.uint8, device=device)
    for each in devices:
        chosen = [place for place, image in enumerate(pixels) if image.device == each]
        whole[chosen] = torch.stack([pixels[place] for place in chosen]).to(device)
    return whole


def _with_errors(rows: pa.Table, errors: dict[int, ImageError]) -> pa.Table:
    if not errors:
        return rows
    names = ("status", "error", WIDTH, HEIGHT)
    columns = {name: rows.column(name).to_pylist() for name in names}
    for place, error in errors.items():
        row = (Status(error.status).value, error.message, None, None)
        for name, value in zip(names, row, strict=True):
            columns[name][place] = value
    for name, values in columns.items():
        field = rows.schema.field(name)
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, field, pa.array(values, field.type))
    return rows
