"""AGIQA-1K, from its readme and the columns that public loaders of AIGC_MOS_Zscore.xlsx read."""

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
    rows = ReleaseRows()
    for name, mos in read_xlsx(folder, labels[0], ("Image", "MOS")):
        rows.add(str(name).strip(), float(mos))
    return rows


RELEASE = Release(
    title="AGIQA-1K",
    labels=(("AIGC_MOS_Zscore.xlsx",),),
    images=("file/", "images/", ""),
    scale=(0.0, 5.0),
    read=_read,
)
