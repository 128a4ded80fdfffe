"""A check of foreign features on a few images at hand: are they those of the named model?

Nothing in an array says which tower made it, and another tower of the same width gives plausible scores
without meaning. So the images are encoded here, and compared with their rows. Another program's resize or
precision changes features slightly, another tower entirely: see docs/embeddings.md for figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.columns import IMAGE_ID, URI
from iqa_core.errors import ImageError, InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.images.decode import decode_image
from iqa_core.redaction import redact
from iqa_core.scoring.encode import encode_images
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import DATA, read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from iqa_core.clip.encoder import Towers
    from iqa_core.tables.feature_source import FeatureSource

__all__ = ["LEAST_COSINE", "check_images"]

#: The median cosine from which features count as the model's own.
LEAST_COSINE = 0.98
#: Images of a manifest that are looked for.
_MOST_IMAGES = 1000
#: Rows that are tried for each image that is wanted; links of old crawls are often dead.
_TRIES = 10


@dataclass
class _Found:
    """Images and their rows' features."""

    pixels: list[np.ndarray] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def check_images(wanted: str, source: FeatureSource, towers: Towers) -> str:
    """Compare features with those that a model gives for the images.

    Args:
        wanted: ``--check-images``: how many of the metadata's images to fetch, or a manifest of
        images, which
            are matched by ``image_id`` or else by ``uri``.
        source: The features.
        towers: The model.

    Returns:
        A sentence with the cosines.

    Raises:
        InputError: If the median cosine is below ``LEAST_COSINE``, or no image could be compared.
    """
    if wanted.isdecimal() and int(wanted) < 1:
        raise InputError(
            argument="check_images",
            value=wanted,
            limit="at least 1",
            fix="leave it out for no check",
        )
    if wanted.isdecimal():
        found = _of_metadata(int(wanted), source, towers)
    else:
        found = _of_manifest(wanted, source, towers)
    if not found.pixels:
        reason = found.failures[0] if found.failures else "no row of the features names one of them"
        raise InputError(
            f"--check-images {redact(wanted)}: no image could be compared ({reason}): give a manifest "
            "of images "
            "whose image_id or uri the metadata have"
        )
    encoded, failed = encode_images(towers.image.encode, found.pixels, towers.image.width)
    given = np.stack(found.features).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(given, axis=1) * np.linalg.norm(encoded, axis=1)
        cosines = np.einsum("nd,nd->n", given, encoded.astype(np.float64)) / lengths
    cosines = cosines[np.isfinite(cosines)]
    if not len(cosines):
        raise InputError(
            f"--check-images {redact(wanted)}: none of {len(given):,} images has features on both sides "
            f"({next(iter(failed.values()), 'their rows are zero or not finite')}): give other images"
        )
    median, lowest = float(np.median(cosines)), float(cosines.min())
    told = f"{len(cosines):,} images have a cosine of {median:.4f} (median; lowest {lowest:.4f})"
    if median < LEAST_COSINE:
        raise InputError(
            f"--check-images {redact(wanted)}: {told} to what --model {towers.name} makes of them, and "
            f"{LEAST_COSINE} is needed: another model made the features, their rows are in another order, "
            "or images were resized or encoded otherwise, which changes scores too"
        )
    return f"--check-images: {told} to the features"


def _rows(source: FeatureSource, columns: list[str]) -> Iterator[tuple[pa.Table, np.ndarray]]:
    for read in source.blocks(columns):
        block = read()
        yield block.rows, block.features


def _of_metadata(count: int, source: FeatureSource, towers: Towers) -> _Found:
    """Return the first images that can be fetched."""
    fetcher = Fetcher(source.manifest().folder.uri, timeout=10.0, retries=0)
    found = _Found()
    for table, features in _rows(source, [URI]):
        for place, uri in enumerate(table.column(URI).to_pylist()):
            if len(found.pixels) == count or len(found.failures) >= _TRIES * count:
                return found
            if uri:
                _add(found, fetcher, uri, features[place], towers)
        if not found.pixels and not found.failures:
            return found  # without any URI there is nothing to look for
    return found


def _of_manifest(wanted: str, source: FeatureSource, towers: Towers) -> _Found:
    """Return the images of a manifest that the features have rows of."""
    manifest = open_manifest(wanted)
    if manifest.rows > _MOST_IMAGES:
        raise InputError(
            f"--check-images {redact(wanted)} has {manifest.rows:,} images, more than "
            f"{_MOST_IMAGES:,}: a few "
            "dozen are enough"
        )
    images: dict[tuple[str, str], dict[str, Any]] = {}
    for row_slice in plan_slices(manifest, RowSet()):
        tables = read_slice(manifest.folder, row_slice, (), manifest.image_id_type, 64)
        for row in (row for table in tables for row in table.to_pylist()):
            images |= dict.fromkeys(_keys(row), row)
    fetcher = Fetcher(manifest.folder.uri, timeout=30.0)
    found = _Found()
    for table, features in _rows(source, [IMAGE_ID, URI]):
        for place, names in enumerate(table.select([IMAGE_ID, URI]).to_pylist()):
            row = next((images[each] for each in _keys(names) if each in images), None)
            if row is not None:
                for each in _keys(row):
                    images.pop(each, None)
                _add(found, fetcher, row[DATA] or row[URI], features[place], towers)
        if not images:
            break
    return found


def _keys(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a row may be found by: its image_id, and its URI."""
    return [(name, str(row[name])) for name in (IMAGE_ID, URI) if row[name] is not None]


def _add(
    found: _Found, fetcher: Fetcher, image: str | bytes, features: np.ndarray, towers: Towers
) -> None:
    try:
        data = fetcher.fetch(image) if isinstance(image, str) else image
        found.pixels.append(decode_image(data, towers.preprocess).pixels)
    except ImageError as error:
        found.failures.append(f"{error.status}: {error.message}")
    else:
        found.features.append(features)
