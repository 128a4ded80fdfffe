"""What the workers of a run are told, and the columns that travel between its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from iqa_core.clip.encoder import Precision
    from iqa_core.fetch.fetcher import Fetcher
    from iqa_core.images.decode import Decoded
    from iqa_core.preprocess import Preprocess
    from iqa_core.scoring.features import PromptFeatures

__all__ = [
    "DECODED_ON",
    "DECODE_SECONDS",
    "DEVICE",
    "FETCH_SECONDS",
    "MODEL_SECONDS",
    "OUT_OF_MEMORY",
    "PIXELS",
    "Encoding",
]

#: uint8 pixels of an image and of its degraded copies, one after another; null if it failed.
PIXELS = "_pixels"
FETCH_SECONDS = "_fetch_seconds"
DECODE_SECONDS = "_decode_seconds"
MODEL_SECONDS = "_model_seconds"
#: Batches that were halved because the device's memory was full.
OUT_OF_MEMORY = "_out_of_memory"
#: Name of the node that fetched and decoded a row.
DECODED_ON = "_decoded_on"
#: What scored a row: device, node and process.
DEVICE = "_device"


@dataclass(frozen=True)
class Encoding:
    """How rows become features and scores; travels to the workers.

    Attributes:
        fetcher: Reads images by URI.
        preprocess: How the tower wants its images; None leaves them at their own size.
        decoder: Encoded bytes to pixels; raises :class:`iqa_core.errors.ImageError`.
        precision: Arithmetic of the tower.
        batch_size: Images in one forward pass.
        width: Width of the image features.
        prompts: What the features are scored by; None only embeds.
        schema: The output's columns.
        views: Degraded copies of each image that are encoded beside it; they need ``preprocess``.
        decode_seconds: A decoder that takes longer over one image is taken to hang.
    """

    fetcher: Fetcher
    preprocess: Preprocess | None
    decoder: Callable[[bytes], Decoded]
    precision: Precision
    batch_size: int
    width: int
    prompts: PromptFeatures | None
    schema: pa.Schema
    views: int = 0
    decode_seconds: float = 120.0

    def image_bytes(self) -> int | None:
        """Return the pixel bytes of a row with its views; None where each image has its own size."""
        if self.preprocess is None:
            return None
        height, width = self.preprocess.size
        return height * width * 3 * (1 + self.views)
