"""FLIVE (PaQ-2-PiQ, LIVE-FB), from baidut/PaQ-2-PiQ's database/labels_image.csv and labels640.csv.

The test set is of the images with a side above 640 pixels, which their label file lists. The
validation set is marked in labels<=640_padded.csv. Both as pyiqa's script reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows
from iqa_core.releases.sources import read_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    table = read_csv(folder, labels[0], ("name", "mos"))
    held_out: dict[str, str] = {}
    for base in ("", "database/"):
        for name in ("labels<=640_padded.csv", "labels=640_padded.csv"):
            if folder.exists(base + name):
                for row in read_csv(folder, base + name, ("name_image", "is_valid")):
                    if row["is_valid"].lower() in ("true", "1", "1.0"):
                        held_out[row["name_image"]] = "validation"
        for name in ("labels>640.csv", "labels640.csv"):
            if folder.exists(base + name):
                for row in read_csv(folder, base + name, ("name_image",)):
                    held_out[row["name_image"]] = "test"
    rows = ReleaseRows()
    for row in table:
        split = held_out.get(row["name"], "train") if held_out else None
        rows.add(row["name"], float(row["mos"]), split=split)
    parts = set(held_out.values())
    if parts != {"validation", "test"}:
        lacking = " and ".join(sorted({"validation", "test"} - parts))
        rows.notes.append(
            f"no official {lacking} split: labels<=640_padded.csv and labels>640.csv are not there"
        )
    return rows


RELEASE = Release(
    title="FLIVE",
    labels=(("labels_image.csv", "database/labels_image.csv"),),
    images=("database/", ""),
    scale=(0.0, 100.0),
    read=_read,
)
