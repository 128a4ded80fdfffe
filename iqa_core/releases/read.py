"""Official releases of the field's benchmarks as manifests, read as they unpack, without conversion.

Each release has a file of its own, which says where its layout is from: the release itself, or public
code that reads it. What is certain about each, its scale, its direction and its traps are in
docs/releases.md.

``mos`` is on the release's own scale and in its own direction; ``mos_normalised`` is in [0, 1] and
higher for better images: DMOS are inverted. It is relative to the nominal scale, widened where an
opinion lies outside of it, as some of LIVE's do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqa_core.columns import IMAGE_ID, URI
from iqa_core.errors import InputError
from iqa_core.releases.sources import has_csv_columns
from iqa_core.releases.table import RELEASES
from iqa_core.storage.folder import Folder, has_scheme
from iqa_core.storage.walk import EntryKind, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqa_core.releases.release import Release, ReleaseRows

__all__ = ["ReleaseTable", "read_release", "recognise_release"]


@dataclass(frozen=True, eq=False)
class ReleaseTable:
    """A release as a manifest.

    Attributes:
        name: Key of :data:`iqa_core.releases.table.RELEASES`.
        table: ``uri``, ``image_id``, ``mos``, ``mos_normalised``, and those of ``split``,
            ``distortion``, ``level`` and ``reference`` that the release has.
        notes: What was left out and what a user has to know, a line each.
    """

    name: str
    table: pa.Table
    notes: tuple[str, ...]


def recognise_release(path: str) -> str | None:
    """Return which release a folder is, by its files of labels, or None.

    Raises:
        InputError: If it holds several.
    """
    folder = Folder.of(path)
    names = []
    for name, release in RELEASES.items():
        labels = _labels_of(folder, release)
        if labels and (not release.columns or has_csv_columns(folder, labels[0], release.columns)):
            names.append(name)
    if len(names) > 1:
        raise InputError(
            f"{path} holds several releases: name one with --release: {', '.join(names)}"
        )
    return names[0] if names else None


def read_release(path: str, name: str) -> ReleaseTable:
    """Read a release's labels and find its images.

    Args:
        path: Its folder, or the one that it was unpacked in, local or on any fsspec filesystem.
        name: Key of :data:`iqa_core.releases.table.RELEASES`.

    Returns:
        The manifest.

    Raises:
        InputError: If a file, a column or an image is not where the release has it.
    """
    release = RELEASES[name]
    above = Folder.of(path)
    if not above.fs.isdir(above.root):
        raise InputError(
            f"{path} is not a folder: give the folder that {release.title} was unpacked to"
        )
    located = _locate(above, release)
    if located is None:
        wanted = " and ".join(" or ".join(group) for group in release.labels)
        raise InputError(
            f"{path} is not {release.title} as it unpacks: it has no {wanted}: give the folder that "
            "holds it"
        )
    folder, labels = located
    try:
        rows = release.read(folder, labels)
    except (OSError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{folder.uri}: {', '.join(labels)} can't be read as that of {release.title} ({message}): "
            "unpack the release again"
        ) from error
    wrong = next((i for i, mos in enumerate(rows.mos) if not math.isfinite(mos)), None)
    if not rows.mos or wrong is not None:
        what = "no image" if wrong is None else f"no opinion of {rows.images[wrong]}"
        raise InputError(f"{folder.uri}: {', '.join(labels)} has {what}: unpack the release again")
    paths = _find_images(folder, release, rows.images)
    return ReleaseTable(name, _table(release, folder, rows, paths), tuple(rows.notes))


def _table(release: Release, folder: Folder, rows: ReleaseRows, paths: Sequence[str]) -> pa.Table:
    uris = [folder.path(path) for path in paths]
    if has_scheme(folder.uri):
        uris = [folder.fs.unstrip_protocol(uri) for uri in uris]
    mos = np.array(rows.mos, dtype=np.float64)
    low, high = float(mos.min()), float(mos.max())
    if release.scale is not None:
        low, high = min(low, *release.scale), max(high, *release.scale)
    normalised = (mos - low) / (high - low) if high > low else np.zeros_like(mos)
    columns: dict[str, Any] = {
        URI: pa.array(uris, pa.string()),
        IMAGE_ID: pa.array(rows.images, pa.string()),
        "mos": mos,
        "mos_normalised": 1 - normalised if release.lower_is_better else normalised,
    }
    optional: dict[str, tuple[list[Any], pa.DataType]] = {
        "split": (rows.split, pa.string()),
        "distortion": (rows.distortion, pa.string()),
        "level": (rows.level, pa.int64()),
        "reference": (rows.reference, pa.string()),
    }
    for column, (values, kind) in optional.items():
        if any(value is not None for value in values):
            columns[column] = pa.array(values, kind)
    return pa.table(columns)


# Files --------------------------------------------------------------------------------------------


def _locate(above: Folder, release: Release) -> tuple[Folder, list[str]] | None:
    """Return the release's folder, this one or one in it, and its label files; or None."""
    labels = _labels_of(above, release)
    if labels:
        return above, labels
    entries = above.fs.ls(above.root, detail=True)
    paths = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
    for name in sorted(path.rpartition("/")[2] for path in paths):
        folder = Folder(f"{above.uri.rstrip('/')}/{name}", above.fs, above.path(name))
        labels = _labels_of(folder, release)
        if labels:
            return folder, labels
    return None


def _labels_of(folder: Folder, release: Release) -> list[str]:
    """Return the label files that are there, one of each group; [] if a group has none."""
    found = [next(filter(folder.exists, group), "") for group in release.labels]
    return found if all(found) else []


def _find_images(folder: Folder, release: Release, names: Sequence[str]) -> list[str]:
    """Return where the images are below the folder; case is as each release's archive has it."""
    root = folder.root + "/"
    try:
        here = [path[len(root) :] for path in _files(folder) if path.startswith(root)]
    except OSError as error:
        raise InputError(f"{folder.uri} can't be listed: {error}") from error
    by_path = {path.lower(): path for path in here}
    wanted = [name.lower() for name in names]
    # one folder for all: two sizes of the same images must not mix
    for base in (base.lower() for base in release.images):
        found = [by_path.get(base + name) for name in wanted]
        if any(found):
            break
    else:  # folders of other names, where a file's own name leaves no doubt
        by_name: dict[str, list[str]] = defaultdict(list)
        for path in here:
            by_name[path.lower().rpartition("/")[2]].append(path)
        found = [_only(by_name[name.rpartition("/")[2]], name) for name in wanted]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise InputError(
            f"{folder.uri} lacks {len(missing):,} of the {len(names):,} images of {release.title}, such "
            f"as {missing[0]}, expected in {' or '.join(base or './' for base in release.images)}: "
            "unpack all of it, or list what is there with --release none"
        )
    return [path for path in found if path is not None]


def _files(folder: Folder) -> list[str]:
    """Return the paths of all files below a folder; links to local folders are followed."""
    if not folder.is_local:
        return list(folder.fs.find(folder.root))
    found = walk(folder.root, lambda path, is_folder: True, follow_above=True)
    return [entry.path for entry in found if entry.kind is EntryKind.FILE]


def _only(paths: Sequence[str], name: str) -> str | None:
    ending = [path for path in paths if f"/{path.lower()}".endswith(f"/{name}")]
    return ending[0] if len(ending) == 1 else None
