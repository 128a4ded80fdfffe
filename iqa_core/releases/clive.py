"""LIVE In the Wild Image Quality Challenge, from its readme as quoted in public loaders.

AllImages_release.mat names 1,169 images, of which the first seven (in Images/trainingImages) only
showed subjects what to do; hyperIQA's loader, for one, starts at the eighth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.releases.release import Release, ReleaseRows
from iqa_core.releases.sources import read_mat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]

_IMAGES, _TRAINING = 1169, 7


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    names = read_mat(folder, labels[0], ["AllImages_release"])["AllImages_release"]
    mos = read_mat(folder, labels[1], ["AllMOS_release"])["AllMOS_release"]
    if len(names) != _IMAGES or len(mos) != _IMAGES:
        raise InputError(
            f"{folder.uri}: {labels[0]} names {len(names):,} images and {labels[1]} rates {len(mos):,}, "
            f"but the release has {_IMAGES:,} in both, of which the first {_TRAINING} are "
            "training examples: unpack it again"
        )
    rows = ReleaseRows(notes=[f"the first {_TRAINING} images are training examples: left out"])
    for name, value in list(zip(names, mos, strict=True))[_TRAINING:]:
        rows.add(str(name), float(value))
    return rows


RELEASE = Release(
    title="LIVE Challenge (CLIVE)",
    labels=(("Data/AllImages_release.mat",), ("Data/AllMOS_release.mat",)),
    images=("Images/",),
    scale=(0.0, 100.0),
    read=_read,
)
