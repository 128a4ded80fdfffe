"""What describes a benchmark release, and the rows that its reader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["Release", "ReleaseRows", "distortion_name"]


@dataclass
class ReleaseRows:
    """What a release's label files hold: an entry for each image in each list.

    Attributes:
        images: Names of the images, as the label file has them.
        mos: Opinions, on the release's own scale.
        split: Official split, such as ``train``; None where there is none.
        distortion: Kind of distortion, likewise.
        level: Its level, from 1, likewise.
        reference: Name of the undistorted image, likewise.
        notes: What was left out and what a user has to know, a line each.
    """

    images: list[str] = field(default_factory=list)
    mos: list[float] = field(default_factory=list)
    split: list[str | None] = field(default_factory=list)
    distortion: list[str | None] = field(default_factory=list)
    level: list[int | None] = field(default_factory=list)
    reference: list[str | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        image: str,
        mos: float,
        *,
        split: str | None = None,
        distortion: str | None = None,
        level: int | None = None,
        reference: str | None = None,
    ) -> None:
        """Append an image."""
        self.images.append(image)
        self.mos.append(mos)
        self.split.append(split)
        self.distortion.append(distortion)
        self.level.append(level)
        self.reference.append(reference)


@dataclass(frozen=True, kw_only=True)
class Release:
    """How to recognise and read a benchmark release.

    Attributes:
        title: Its name as people write it.
        labels: Its label files, relative to its folder: one file of each group must be there.
        images: Folders of images, by preference; an empty name is the release's own folder.
        scale: The worst and the best nominal opinion; None takes the release's own extremes.
        lower_is_better: Whether opinions are DMOS.
        read: Reads the labels, given the folder and the label files that are there.
        columns: Columns by which a CSV file with a common name, such as data.csv, is recognised.
    """

    title: str
    labels: tuple[tuple[str, ...], ...]
    images: tuple[str, ...]
    scale: tuple[float, float] | None
    lower_is_better: bool = False
    read: Callable[[Folder, Sequence[str]], ReleaseRows]
    columns: tuple[str, ...] = ()


def distortion_name(names: Sequence[str], number: str) -> str:
    """Return the distortion that a number in a file name, from 01, stands for.

    Raises:
        ValueError: If there is none of that number.
    """
    if not 1 <= int(number) <= len(names):
        raise ValueError(f"distortion {number} is none of the {len(names)}")
    return names[int(number) - 1]
