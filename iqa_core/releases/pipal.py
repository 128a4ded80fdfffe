"""PIPAL's public training set, from Train_Label/*.txt as pyiqa's script reads it.

Lines are A0001_00_05.bmp,1500.1: reference, group of distortions, number in it, Elo score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    rows = ReleaseRows()
    for name in folder.list(f"{labels[0]}/*.txt"):
        for line in folder.read(name).decode("ascii").splitlines():
            if not line.strip():
                continue
            image, elo = line.split(",")
            reference, group, _ = image.rpartition(".")[0].split("_")
            rows.add(
                image.strip(),
                float(elo),
                split="train",
                distortion=group,
                reference=f"{reference.strip()}.bmp",
            )
    rows.notes.append("distortion is the number of the group, 00 to 06; opinions are Elo scores")
    return rows


RELEASE = Release(
    title="PIPAL",
    labels=(("Train_Label",),),
    images=("Train_Dist/", "Dist_Imgs/"),
    scale=None,
    read=_read,
)
