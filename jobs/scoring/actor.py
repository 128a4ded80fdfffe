"""The Ray actors that score: of pixels where a GPU is fed by many decoders, of images on CPUs.

The driver imports this module for their classes, and no torch with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .allocator import keep_freed_memory
from .decode import BLOCK_BYTES, decode_blocks
from .pixels import encoded_blocks, pixel_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from .pixels import EncodedBlock, PixelBlock
    from .pool import ActorPool
    from .settings import DecodeSettings, ScoreSettings
    from .tower import ScoringTower

__all__ = ["ImageActor", "PixelActor"]


class PixelActor:
    """Scores blocks of pixels (a Ray actor).

    Args:
        tower: The pickled reference of the image tower, as of :class:`ScoringTower`.
        settings: How pixels become scores.
        pool: The pool that this actor belongs to.
    """

    def __init__(self, tower: bytes, settings: ScoreSettings, pool: ActorPool) -> None:
        self.tower = _tower(tower, settings, pool)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the rows with scores instead of pixels.

        Raises:
            NodeError: If this actor could not start.
        """
        self.tower.check()
        size = self.tower.settings.size
        blocks: Iterator[PixelBlock | EncodedBlock] = pixel_blocks(table, size)
        if self.tower.settings.jpegs and size:
            blocks = encoded_blocks(table, size)
        for block in blocks:
            yield self.tower.score(block)


class ImageActor:
    """Fetches, decodes and scores images in one process (a Ray actor).

    On CPUs all stages need the same cores, so that whatever an image's stages cost, no core waits for
    another's work, and pixels stay in the cache.

    Args:
        tower: The pickled reference of the image tower, as of :class:`ScoringTower`.
        decode: How images become pixels.
        settings: How pixels become scores.
        pool: The pool that this actor belongs to.
    """

    def __init__(
        self, tower: bytes, decode: DecodeSettings, settings: ScoreSettings, pool: ActorPool
    ) -> None:
        keep_freed_memory()
        self.decode = decode
        self.tower = _tower(tower, settings, pool)
        each = settings.row_bytes()
        self.block_bytes = BLOCK_BYTES if each is None else each * settings.batch_rows

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the rows of :func:`jobs.scoring.read.read_rows` with scores.

        Raises:
            NodeError: If this actor could not start.
        """
        self.tower.check()
        for block in decode_blocks(table, self.decode, self.block_bytes, self.tower.seen):
            yield self.tower.score(block)


def _tower(tower: bytes, settings: ScoreSettings, pool: ActorPool) -> ScoringTower:
    from .tower import ScoringTower  # torch

    return ScoringTower(tower, settings, pool)
