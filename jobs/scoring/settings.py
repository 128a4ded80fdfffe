"""Settings of the stages: the driver's :class:`StageSettings`, and the part of it that each stage gets.

A worker unpickles only the settings of its own stage, so that a decode worker imports no model code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from iqa_core.clip.encoder import ImageEncoder, Precision
    from iqa_core.fetch.fetcher import Fetcher
    from iqa_core.images.decode import Decoded
    from iqa_core.images.encoded import EncodedJpeg
    from iqa_core.preprocess import Preprocess
    from iqa_core.scoring.device_jpeg import DeviceDecoder
    from iqa_core.scoring.features import PromptFeatures

__all__ = ["DecodeSettings", "ScoreSettings", "StageSettings"]

#: Images in one forward pass: on a CPU more are no faster.
_BATCH = 32


@dataclass(frozen=True)
class DecodeSettings:
    """What a decode task needs. See :class:`StageSettings` for the attributes.

    Attributes:
        size: Height and width of all decoded images; None where each keeps its own.
        leaves_encoded: Whether ``decoder`` leaves JPEGs to the device of the scoring actor.
    """

    fetcher: Fetcher
    decoder: Callable[[bytes], Decoded | EncodedJpeg]
    size: tuple[int, int] | None
    views: int
    decode_seconds: float
    hashes: bool = False
    dedupe: bool = False
    descriptors: bool = False
    leaves_encoded: bool = False


@dataclass(frozen=True)
class ScoreSettings:
    """What a scoring actor needs beside the tower. See :class:`StageSettings` for the attributes.

    Attributes:
        size: Height and width of all images; None where each has its own.
    """

    size: tuple[int, int] | None
    precision: Precision
    batch_size: int | None
    width: int
    prompts: PromptFeatures | None
    schema: pa.Schema
    views: int
    hashes: bool = False
    dedupe: bool = False
    crops: int = 1
    descriptors: bool = False
    compile: bool = False
    jpegs: DeviceDecoder | None = None
    decode_seconds: float = 120.0

    @property
    def copies(self) -> int:
        """Images that are encoded of each row: its crops, or itself with degraded copies."""
        return self.crops + self.views

    @property
    def batch_rows(self) -> int:
        """Images in one forward pass where nothing was measured."""
        return self.batch_size or _BATCH

    def row_bytes(self) -> int | None:
        """Return the pixel bytes of a row with its views; None where each image has its own size.

        So have encoded ones.
        """
        if self.size is None or self.jpegs:
            return None
        height, width = self.size
        return height * width * 3 * self.copies


@dataclass(frozen=True)
class StageSettings:
    """How rows become features and scores.

    Attributes:
        tower: The image tower, on the CPU.
        fetcher: Reads images by URI.
        preprocess: How the tower wants its images; None keeps each image's own size.
        decoder: Encoded bytes to pixels; raises :class:`iqa_core.errors.ImageError`.
        precision: Precision of the tower.
        batch_size: Images in one forward pass; None measures on a GPU what is fastest.
        width: Width of the image features.
        prompts: The features of the prompts; None only embeds.
        schema: The output's columns.
        views: Degraded copies of each image that are encoded beside it; they need ``preprocess``.
        decode_seconds: Time limit on decoding one image.
        hashes: Whether the output has each image's hash.
        dedupe: Whether an image whose bytes a worker met recently is not decoded and encoded again.
        crops: Views of each image that ``decoder`` returns and that are scored; several exclude ``views``.
        descriptors: Whether the output has each image's descriptor.
        compile: Whether actors on GPUs compile the tower for full batches.
        jpegs: Decodes, in actors on GPUs, what ``decoder`` leaves encoded; None where it leaves nothing.
    """

    tower: ImageEncoder
    fetcher: Fetcher
    preprocess: Preprocess | None
    decoder: Callable[[bytes], Decoded | EncodedJpeg]
    precision: Precision
    batch_size: int | None
    width: int
    prompts: PromptFeatures | None
    schema: pa.Schema
    views: int = 0
    decode_seconds: float = 120.0
    hashes: bool = False
    dedupe: bool = False
    crops: int = 1
    descriptors: bool = False
    compile: bool = False
    jpegs: DeviceDecoder | None = None

    @property
    def batch_rows(self) -> int:
        """Images in one forward pass where nothing was measured."""
        return self.score.batch_rows

    @property
    def decode(self) -> DecodeSettings:
        """The settings of decode tasks."""
        size = self.preprocess.size if self.preprocess else None
        return DecodeSettings(
            fetcher=self.fetcher,
            decoder=self.decoder,
            size=size,
            views=self.views,
            decode_seconds=self.decode_seconds,
            hashes=self.hashes,
            dedupe=self.dedupe,
            descriptors=self.descriptors,
            leaves_encoded=self.jpegs is not None,
        )

    @property
    def score(self) -> ScoreSettings:
        """The settings of scoring actors."""
        return ScoreSettings(
            size=self.preprocess.size if self.preprocess else None,
            precision=self.precision,
            batch_size=self.batch_size,
            width=self.width,
            prompts=self.prompts,
            schema=self.schema,
            views=self.views,
            hashes=self.hashes,
            dedupe=self.dedupe,
            descriptors=self.descriptors,
            crops=self.crops,
            compile=self.compile,
            jpegs=self.jpegs,
            decode_seconds=self.decode_seconds,
        )
