"""AGIQA-3K, from lcysyzxdxc/AGIQA-3k-Database's data.csv; mos_align is about the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows
from iqa_core.releases.sources import read_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]

_COLUMNS = ("name", "prompt", "mos_quality", "mos_align")


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    rows = ReleaseRows(notes=["mos is mos_quality; mos_align rates how an image fits its prompt"])
    for row in read_csv(folder, labels[0], _COLUMNS):
        rows.add(row["name"], float(row["mos_quality"]))
    return rows


RELEASE = Release(
    title="AGIQA-3K",
    labels=(("data.csv",),),
    images=("", "images/"),
    scale=(0.0, 5.0),
    read=_read,
    columns=_COLUMNS,
)
