"""Clusters of duplicates: images with equal bytes, and images that show almost the same.

Clusters are connected components: where A resembles B and B resembles C, all three are in one cluster, even
if A does not resemble C. So each row has its similarity to the cluster's first row, and each cluster the
smallest of these.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from iqa_core.duplicates.components import Components, first_equal
from iqa_core.duplicates.exact_search import exact_pairs, unit_rows
from iqa_core.duplicates.indexed_search import indexed_pairs

if TYPE_CHECKING:
    from iqa_core.duplicates.rows import ImageRows

__all__ = [
    "CLUSTER",
    "DEFAULT_THRESHOLD",
    "KIND",
    "LOWEST_SIMILARITY",
    "MOST_EXACT",
    "SIMILARITY",
    "Clusters",
    "find_clusters",
]

CLUSTER = "cluster"
SIMILARITY = "similarity"
LOWEST_SIMILARITY = "lowest_similarity"
KIND = "kind"

#: Cosine of descriptors from which images count as near duplicates; see ``benchmarks/duplicates.py``.
DEFAULT_THRESHOLD = 0.85
#: Up to so many different images, each is compared with each other.
MOST_EXACT = 200_000

#: Rows whose similarity is computed at once.
_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class Clusters:
    """The M rows that have duplicates.

    Attributes:
        places: (M,) their positions among all rows, ascending.
        cluster: (M,) int64, from 0 in the order of the clusters' first rows.
        similarity: (M,) float32, cosine with the cluster's first row; 1 where the bytes are equal.
        lowest: (M,) float32, the smallest of these in the row's cluster.
        is_exact: (M,) bool, whether another row has the same bytes.
        threshold: The threshold on cosines; None if only bytes were compared.
    """

    places: np.ndarray
    cluster: np.ndarray
    similarity: np.ndarray
    lowest: np.ndarray
    is_exact: np.ndarray
    threshold: float | None

    def with_identities(self, rows: ImageRows) -> pa.Table:
        """Return the rows as a table.

        Raises:
            InputError: If a part file of the output can't be read.
        """
        table = rows.identities(self.places)
        kinds = pa.DictionaryArray.from_arrays(
            pa.array(np.where(self.is_exact, 0, 1), pa.int8()), ["exact", "near"]
        )
        columns = {
            CLUSTER: pa.array(self.cluster, pa.int64()),
            SIMILARITY: pa.array(self.similarity, pa.float32()),
            LOWEST_SIMILARITY: pa.array(self.lowest, pa.float32()),
            KIND: kinds.cast(pa.string()),
        }
        for name, values in columns.items():
            table = table.append_column(name, values)
        return table

    def describe(self) -> str:
        """Return one line on what was found."""
        count = int(self.cluster.max()) + 1 if len(self.cluster) else 0
        exact = int(self.is_exact.sum())
        parts = [f"{len(self.places):,} rows in {count:,} clusters"]
        parts.append(f"{exact:,} share their bytes with another row")
        if self.threshold is not None:
            near = len(self.places) - exact
            parts.append(f"{near:,} are near (cosine at least {self.threshold:g})")
        if count:
            parts.append(f"the largest cluster has {int(np.bincount(self.cluster).max()):,}")
        line = "; ".join(parts)
        below = self.lowest < (self.threshold or 0.0)
        if below.any():
            chains = len(np.unique(self.cluster[below]))
            line += (
                f"; {chains:,} clusters are chains, whose similarity to their first row goes down to "
                f"{self.lowest.min():.3f}"
            )
        return line


def find_clusters(
    rows: ImageRows, threshold: float = DEFAULT_THRESHOLD, *, most_exact: int = MOST_EXACT
) -> Clusters:
    """Find duplicates by bytes, and by features where there are any.

    Args:
        rows: The images.
        threshold: The smallest cosine of near duplicates.
        most_exact: Compare each with each up to this number of different images; an index beyond it.

    Raises:
        InputError: If an index is needed, and faiss is not installed.
    """
    count = len(rows)
    equal = np.arange(count) if rows.hashes is None else first_equal(rows.hashes)
    components = Components(equal)
    features = rows.features
    if features is not None:
        there = np.isfinite(features).all(axis=1) & features.any(axis=1)
        different = np.flatnonzero((equal == np.arange(count)) & there)
        # Blank images of many sizes: equal features in great number, and pairs in their square.
        alike = different[first_equal(_digests(features, different))]
        components.join(alike, different)
        distinct = different[alike == different]
        search = exact_pairs if len(distinct) <= most_exact else indexed_pairs
        for first, second in search(features[distinct], threshold):
            components.join(distinct[first], distinct[second])
    sizes = np.bincount(components.labels, minlength=count)
    places = np.flatnonzero(sizes[components.labels] > 1)
    first_rows = components.labels[places]
    _, cluster = np.unique(first_rows, return_inverse=True)
    similarity = np.ones(len(places), np.float32)
    other = np.flatnonzero(equal[places] != first_rows)
    if features is not None:
        for start in range(0, len(other), _ROWS):
            part = other[start : start + _ROWS]
            own, first = (
                unit_rows(features[equal[places[part]]]),
                unit_rows(features[first_rows[part]]),
            )
            similarity[part] = np.minimum((own * first).sum(axis=1), 1.0)
    lowest = np.ones(int(cluster.max()) + 1 if len(cluster) else 0, np.float32)
    np.minimum.at(lowest, cluster, similarity)
    return Clusters(
        places=places,
        cluster=cluster.astype(np.int64),
        similarity=similarity,
        lowest=lowest[cluster],
        is_exact=np.bincount(equal, minlength=count)[equal[places]] > 1,
        threshold=None if features is None else threshold,
    )


def _digests(features: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return (M, 2) uint64 that are equal where the features of rows are."""
    found = b"".join(
        hashlib.blake2b(features[p].tobytes(), digest_size=16).digest() for p in places
    )
    return np.frombuffer(found, np.uint64).reshape(-1, 2)
