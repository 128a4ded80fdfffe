"""LIVE IQA release 2, from its readme's order of images as public loaders have it.

Values are one after the other for jp2k, jpeg, wn, gblur and fastfading; where ``orgs`` is 1 the
image is the undistorted reference once more. dmos_realigned.mat (``dmos_new``) is preferred to
dmos.mat, as by the authors since 2006.
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

#: Folders in the order of the values, and their numbers of images.
_FOLDERS = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))


def _read(folder: Folder, labels: Sequence[str]) -> ReleaseRows:
    """Read the labels."""
    variable = "dmos_new" if labels[0] == "dmos_realigned.mat" else "dmos"
    values = read_mat(folder, labels[0], [variable, "orgs"])
    references = read_mat(folder, labels[1], ["refnames_all"])["refnames_all"]
    images = [(kind, f"{kind}/img{i}.bmp") for kind, n in _FOLDERS for i in range(1, n + 1)]
    sizes = {len(values[variable]), len(values["orgs"]), len(references)}
    if sizes != {len(images)}:
        raise InputError(
            f"{folder.uri}: {labels[0]} and {labels[1]} have {', '.join(map(str, sorted(sizes)))} "
            f"values, but the release has {len(images)} images: unpack it again"
        )
    rows = ReleaseRows()
    for (kind, name), dmos, original, reference in zip(
        images, values[variable], values["orgs"], references, strict=True
    ):
        if not original:
            rows.add(name, float(dmos), distortion=kind, reference=str(reference))
    count = len(images) - len(rows.images)
    rows.notes.append(f"{count} undistorted copies of the references are left out")
    return rows


RELEASE = Release(
    title="LIVE",
    labels=(("dmos_realigned.mat", "dmos.mat"), ("refnames_all.mat",)),
    images=("",),
    scale=(0.0, 100.0),
    lower_is_better=True,
    read=_read,
)
