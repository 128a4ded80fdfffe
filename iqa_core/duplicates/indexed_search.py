"""Pairs of rows with a high cosine among many rows, by an inverted file (faiss).

Rows are put into cells around the centres of a k-means; a row is compared with the rows of the cells
nearest to it. Two rows with a cosine near 1 are nearly always in the same cell or in neighbouring ones, so
few pairs are missed. Method: J. Sivic and A. Zisserman, "Video Google: a text retrieval approach to object
matching in videos", ICCV 2003; library: https://github.com/facebookresearch/faiss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.duplicates.exact_search import unit_rows
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["indexed_pairs"]

#: Rows that are added or searched at once.
_ROWS = 16_384
#: Cells for the square root of the number of rows, and rows for each cell that k-means sees.
_CELLS, _TRAINING_ROWS = 4, 48
#: Cells that a row is compared with.
_PROBES = 16


def indexed_pairs(
    features: np.ndarray, threshold: float, *, probes: int = _PROBES, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find nearly all pairs; needs faiss, and 2 bytes for each value beside the features.

    Args:
        features: (N, D), finite; they need not be of length 1.
        threshold: The smallest cosine of a pair.
        probes: Cells that a row is compared with: more find more pairs and take longer.
        seed: Of the rows that k-means sees.

    Yields:
        As :func:`iqa_core.duplicates.exact_search.exact_pairs`; a pair may come twice.

    Raises:
        InputError: If faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            f"near duplicates among {len(features):,} rows need faiss: pip install "
            "'distributed-iqa[duplicates]'"
        ) from error
    rows, width = features.shape
    if rows < 2:
        return
    cells = max(1, min(int(_CELLS * rows**0.5), rows // _TRAINING_ROWS))
    chosen = np.random.default_rng(seed).choice(
        rows, min(rows, cells * _TRAINING_ROWS), replace=False
    )
    index: Any = faiss.index_factory(width, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed + 1
    index.train(unit_rows(features[np.sort(chosen)]))
    for start in range(0, rows, _ROWS):
        index.add(unit_rows(features[start : start + _ROWS]))
    index.nprobe = min(probes, cells)
    for start in range(0, rows, _ROWS):
        ends: Any
        ends, _, found = index.range_search(unit_rows(features[start : start + _ROWS]), threshold)
        first = np.repeat(np.arange(start, start + len(ends) - 1), np.diff(ends.astype(np.int64)))
        others = first != found
        if others.any():
            # Of two rows, often only one finds the other.
            pair = first[others], found[others]
            yield np.minimum(*pair), np.maximum(*pair)
