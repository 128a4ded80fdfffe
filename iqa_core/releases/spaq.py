"""SPAQ, from the columns that pyiqa's and ARNIQA's loaders read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows
from iqa_core.releases.sources import read_xlsx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    rows = ReleaseRows(
        notes=[
            "published results resize the shorter side to 512; these are the files as they are, of "
            "up to 20 megapixels"
        ]
    )
    for name, mos in read_xlsx(folder, labels[0], ("Image name", "MOS")):
        rows.add(str(name).strip(), float(mos))
    return rows


RELEASE = Release(
    title="SPAQ",
    labels=(
        ("Annotations/MOS and Image attribute scores.xlsx", "MOS and Image attribute scores.xlsx"),
    ),
    images=("TestImage/",),
    scale=(0.0, 100.0),
    read=_read,
)
