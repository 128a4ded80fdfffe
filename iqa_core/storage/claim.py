"""The claim of a lease: which rows of an output its driver may write, and under which fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Claim", "Place"]

#: A row's place: (manifest file, row number). Places are in the order of tuples.
Place = tuple[str, int]


@dataclass(frozen=True)
class Claim:
    """The rows that the driver of a lease may write: half-open, in the order of places.

    Attributes:
        name: For messages, such as ``shard 2/8``; empty for a whole output.
        first: Place of the first row; None is the beginning.
        stop: Place after the last row; None is the end.
        content: Digest of the run's fingerprint; None fits any.
    """

    name: str = ""
    first: Place | None = None
    stop: Place | None = None
    content: str | None = None

    @classmethod
    def of(cls, document: Any) -> Claim:  # noqa: ANN401 - what JSON holds
        """Return the claim of a lease's document; one that states none claims everything."""
        try:
            first, stop = (
                None if place is None else (str(place[0]), int(place[1]))
                for place in (document["first"], document["stop"])
            )
            return cls(str(document["name"]), first, stop, document["content"])
        except (TypeError, KeyError, ValueError, IndexError):
            return cls()

    def overlaps(self, other: Claim) -> bool:
        """Return whether two drivers could write the same row."""
        # Also each begins before its own end: a claim of no rows overlaps with none.
        pairs = ((one, two) for one in (self, other) for two in (self, other))
        return all(_is_before(one.first, two.stop) for one, two in pairs)

    def fits(self, other: Claim) -> bool:
        """Return whether the rows of two drivers may be in one output."""
        return self.content is None or other.content in (None, self.content)

    def conflicts(self, other: Claim) -> bool:
        """Return whether two drivers must not write at the same time."""
        return self.overlaps(other) or not self.fits(other)


def _is_before(first: Place | None, stop: Place | None) -> bool:
    return first is None or stop is None or first < stop
