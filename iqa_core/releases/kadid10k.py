"""KADID-10k, from its dmos.csv, whose values are of 1 to 5 and rise with quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows, distortion_name
from iqa_core.releases.sources import read_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]

_COLUMNS = ("dist_img", "ref_img", "dmos")

#: By the number in a file's name.
_DISTORTIONS = (
    "gaussian blur",
    "lens blur",
    "motion blur",
    "color diffusion",
    "color shift",
    "color quantization",
    "color saturation 1",
    "color saturation 2",
    "jpeg2000",
    "jpeg",
    "white noise",
    "white noise in color component",
    "impulse noise",
    "multiplicative noise",
    "denoise",
    "brighten",
    "darken",
    "mean shift",
    "jitter",
    "non-eccentricity patch",
    "pixelate",
    "quantization",
    "color block",
    "high sharpen",
    "contrast change",
)


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    rows = ReleaseRows(notes=["the column dmos of dmos.csv rises with quality: it is taken as MOS"])
    for row in read_csv(folder, labels[0], _COLUMNS):
        name = row["dist_img"]
        _, kind, level = name.rpartition(".")[0].split("_")
        rows.add(
            name,
            float(row["dmos"]),
            distortion=distortion_name(_DISTORTIONS, kind),
            level=int(level),
            reference=row["ref_img"],
        )
    return rows


RELEASE = Release(
    title="KADID-10k",
    labels=(("dmos.csv",),),
    images=("images/",),
    scale=(1.0, 5.0),
    read=_read,
    columns=_COLUMNS,
)
