"""`--dedupe`: images whose bytes a worker has met before are neither decoded nor encoded again.

What is remembered is bounded, and stays in the process that found it: a decode task remembers pixels
(:class:`SeenPixels`) for the rows of its block, a scoring actor features (:class:`SeenFeatures`) for as
long as it lives. An exchange between workers would cost more than it saves, and would make a row depend
on a worker that may die; a repeat that nobody remembers is computed like any other image.

No model code is imported here, as decode workers import this.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from iqa_core.columns import HEIGHT, WIDTH
from iqa_core.errors import Status

from .stage_columns import CONTENT_DIGEST, DESCRIPTION

if TYPE_CHECKING:
    from .pixels import PixelBlock

__all__ = ["Repeats", "Seen", "SeenFeatures", "SeenImage", "SeenPixels"]

T = TypeVar("T")

#: What a decode task or an actor remembers at most, in bytes of pixels or features.
_MOST_BYTES = 64 * 1024 * 1024
#: What an entry costs beside its pixels or features.
_ENTRY_BYTES = 256


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image whose bytes were decoded before.

    Attributes:
        width: As of :class:`iqa_core.images.decode.Decoded`.
        height: Likewise.
        pixels: (H, W, 3) uint8, or (N, H, W, 3) of several views; None where the actor knows its features.
        description: What it shows (:mod:`iqa_core.duplicates.descriptor`); None if that is not wanted.
    """

    width: int
    height: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None
    description: bytes | None = None


class Seen(Protocol):
    """What a decoder remembers of earlier images."""

    def begin(self) -> None:
        """Forget what was noted for a block that was never scored."""

    def find(self, digest: str) -> SeenImage | None:
        """Return the image whose bytes have a hash, if it is remembered."""

    def note(self, digest: str, image: SeenImage) -> None:
        """Remember an image that was decoded."""


class _Recent(Generic[T]):
    """The most recently used values, up to a number of bytes. Threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def add(self, key: str, value: T, size: int) -> None:
        size += _ENTRY_BYTES
        with self._lock:
            before = self._values.pop(key, None)
            self._bytes += size - (before[1] if before else 0)
            self._values[key] = (value, size)
            while self._bytes > self._most:
                _, (_, removed) = self._values.popitem(last=False)
                self._bytes -= removed


class SeenPixels:
    """Pixels of recent images, for the decoder of one block whose scorer is elsewhere.

    Args:
        most_bytes: Pixels that are kept.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._recent: _Recent[SeenImage] = _Recent(most_bytes)

    def begin(self) -> None:
        """Do nothing: pixels serve any block."""

    def find(self, digest: str) -> SeenImage | None:
        """Return the image whose bytes have a hash, if it is remembered."""
        return self._recent.get(digest)

    def note(self, digest: str, image: SeenImage) -> None:
        """Remember an image that was decoded."""
        self._recent.add(digest, image, 0 if image.pixels is None else image.pixels.nbytes)


class _Known(NamedTuple):
    image: SeenImage
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class Repeats:
    """Where the features of a block's rows come from.

    Attributes:
        known: Features of rows whose bytes were in an earlier block, by place.
        sources: Rows whose bytes an earlier row of the block has -> the place of that row.
        firsts: Hash -> place of the row that is encoded.
    """

    known: dict[int, np.ndarray]
    sources: dict[int, int]
    firsts: dict[str, int]

    def fill(self, features: np.ndarray) -> None:
        """Set the features, (N, F) by place, of rows that were not encoded."""
        for place, values in self.known.items():
            features[place] = values
        for place, source in self.sources.items():
            features[place] = features[source]

    def failed(self, reasons: dict[int, str]) -> dict[int, str]:
        """Return the reasons of failed rows, by place, with those of their repeats."""
        also = {p: reasons[source] for p, source in self.sources.items() if source in reasons}
        return reasons | also

    def mask(self, rows: int) -> np.ndarray:
        """Return which of N rows are repeats, (N,) bool."""
        found = np.zeros(rows, dtype=bool)
        found[[*self.known, *self.sources]] = True
        return found


class SeenFeatures:
    """Features of recent images, for a scoring actor and for a decoder in its process.

    A decoder that leaves out the pixels of an image that it finds here relies on its features being here
    when the block is scored. That holds if it decodes and scores block by block in one thread:
    :meth:`split` looks up all rows of a block before :meth:`remember` can displace any.

    Args:
        most_bytes: Features that are kept.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._recent: _Recent[_Known] = _Recent(most_bytes)
        self._in_block: dict[str, SeenImage] = {}

    def begin(self) -> None:
        """Forget images that were noted for a block that was never scored."""
        self._in_block = {}

    def find(self, digest: str) -> SeenImage | None:
        """Return the image whose bytes have a hash, without pixels, if it is remembered."""
        if digest in self._in_block:
            return self._in_block[digest]
        known = self._recent.get(digest)
        return None if known is None else known.image

    def note(self, digest: str, image: SeenImage) -> None:
        """Remember an image that was decoded, until its block is scored."""
        self._in_block[digest] = replace(image, pixels=None)

    def split(self, block: PixelBlock) -> tuple[PixelBlock, Repeats]:
        """Return a block with the pixels of those images only that must be encoded, and the others."""
        self.begin()
        repeats = Repeats({}, {}, {})
        digests = block.rows.column(CONTENT_DIGEST).to_pylist()
        decoded = block.rows.column("status").to_pylist()
        for place, digest in enumerate(digests):
            if digest is None or decoded[place] != Status.OK:
                continue
            known = self._recent.get(digest)
            if known is not None:
                repeats.known[place] = known.features
            elif digest in repeats.firsts:
                repeats.sources[place] = repeats.firsts[digest]
            else:
                repeats.firsts[digest] = place
        again = repeats.mask(len(block.rows))
        keep = np.flatnonzero(~again[block.places])
        if len(keep) == len(block.places):
            return block, repeats
        copies = len(block.pixels) // len(block.places)
        chosen = (keep[:, None] * copies + np.arange(copies)).ravel()
        pixels: Any
        if isinstance(block.pixels, np.ndarray):
            pixels = block.pixels[chosen]
        else:
            pixels = [block.pixels[position] for position in chosen.tolist()]
        return replace(block, places=block.places[keep], pixels=pixels), repeats

    def remember(self, repeats: Repeats, block: PixelBlock, features: np.ndarray) -> None:
        """Remember the features of the images of a block that were encoded.

        Args:
            repeats: Of :meth:`split`.
            block: The block.
            features: (N, F) by place; rows that are not finite are not remembered.
        """
        names = (WIDTH, HEIGHT, DESCRIPTION)
        widths, heights, shown = (block.rows.column(name).to_pylist() for name in names)
        finite = np.isfinite(features).all(axis=1)
        for digest, place in repeats.firsts.items():
            if finite[place]:
                values = features[place].copy()
                image = SeenImage(widths[place], heights[place], None, shown[place])
                known = _Known(image, values)
                self._recent.add(digest, known, values.nbytes)
