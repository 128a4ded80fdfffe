"""CSIQ, from the sheet all_by_image of csiq.DMOS.xlsx, whose table begins at D4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows
from iqa_core.releases.sources import read_xlsx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]

#: Kind of distortion in the workbook -> folder, and name within a file's name.
_DISTORTIONS = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg2000": ("jpeg2000", "jpeg2000"),
}


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    rows = ReleaseRows()
    columns = ("image", "dst_type", "dst_lev", "dmos")
    for image, kind, level, dmos in read_xlsx(folder, labels[0], columns, "all_by_image"):
        if dmos is None:
            continue
        base, token = _DISTORTIONS[str(kind).replace(" ", "")]
        # a picture named 1600 is a number to a spreadsheet
        name = str(int(image)) if isinstance(image, int | float) else str(image).strip()
        rows.add(
            f"{base}/{name}.{token}.{int(level)}.png",
            float(dmos),
            distortion=base,
            level=int(level),
            reference=f"{name}.png",
        )
    return rows


RELEASE = Release(
    title="CSIQ",
    labels=(("csiq.DMOS.xlsx",),),
    images=("dst_imgs/", ""),
    scale=(0.0, 1.0),
    lower_is_better=True,
    read=_read,
)
