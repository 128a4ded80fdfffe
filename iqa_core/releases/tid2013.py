"""TID2013, from the lines of its mos_with_names.txt: an opinion, a space, I01_01_1.bmp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases.release import Release, ReleaseRows, distortion_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.storage.folder import Folder

__all__ = ["RELEASE"]

#: By the number in a file's name.
_DISTORTIONS = (
    "additive gaussian noise",
    "additive noise in color components",
    "spatially correlated noise",
    "masked noise",
    "high frequency noise",
    "impulse noise",
    "quantization noise",
    "gaussian blur",
    "image denoising",
    "jpeg",
    "jpeg2000",
    "jpeg transmission errors",
    "jpeg2000 transmission errors",
    "non eccentricity pattern noise",
    "local block-wise distortions",
    "mean shift",
    "contrast change",
    "change of color saturation",
    "multiplicative gaussian noise",
    "comfort noise",
    "lossy compression of noisy images",
    "image color quantization with dither",
    "chromatic aberrations",
    "sparse sampling and reconstruction",
)


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    rows = ReleaseRows()
    for line in folder.read(labels[0]).decode("ascii").splitlines():
        if not line.strip():
            continue
        mos, name = line.split()
        image, kind, level = name.rpartition(".")[0].split("_")
        rows.add(
            name,
            float(mos),
            distortion=distortion_name(_DISTORTIONS, kind),
            level=int(level),
            reference=f"{image.upper()}.BMP",
        )
    return rows


RELEASE = Release(
    title="TID2013",
    labels=(("mos_with_names.txt",),),
    images=("distorted_images/",),
    scale=(0.0, 9.0),
    read=_read,
)
