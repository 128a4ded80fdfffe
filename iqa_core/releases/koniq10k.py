"""KonIQ-10k, from subpic/koniq's metadata/koniq10k_distributions_sets.csv and the release's CSV.

The first has the official split, and as MOS what the second calls MOS_zscore, of 1 to 100; the
second's own MOS is of 1 to 5.
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
    rows = ReleaseRows()
    if labels[0] == "koniq10k_distributions_sets.csv":
        names = {"training": "train", "validation": "validation", "test": "test"}
        for row in read_csv(folder, labels[0], ("image_name", "MOS", "set")):
            rows.add(row["image_name"], float(row["MOS"]), split=names[row["set"]])
        return rows
    for row in read_csv(folder, labels[0], ("image_name", "MOS_zscore")):
        rows.add(row["image_name"], float(row["MOS_zscore"]))
    rows.notes.append(
        "no official split: it is in koniq10k_distributions_sets.csv of github.com/subpic/koniq"
    )
    return rows


RELEASE = Release(
    title="KonIQ-10k",
    labels=(("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv"),),
    images=("1024x768/", "512x384/"),
    scale=(1.0, 100.0),
    read=_read,
)
