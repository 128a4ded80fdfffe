"""Groups of rows that are connected by pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Components", "first_equal"]


def first_equal(values: np.ndarray) -> np.ndarray:
    """Return for each row the position of the first row that equals it.

    >>> first_equal(np.array([[5, 1], [3, 1], [5, 1]])).tolist()
    [0, 1, 0]

    Args:
        values: (N, K), of few columns.

    Returns:
        (N,) int64.
    """
    if not len(values):
        return np.empty(0, np.int64)
    order = np.lexsort(values.T[::-1])  # stable: the first row of a group comes first
    values = values[order]
    is_new = np.concatenate([[True], (values[1:] != values[:-1]).any(axis=1)])
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[is_new][np.cumsum(is_new) - 1]
    return firsts


class Components:
    """The connected components of N rows; each is named by its first row.

    Args:
        labels: (N,) the first row of each row's component at the start; None if each is alone.
        rows: N, if ``labels`` is None.

    Attributes:
        labels: (N,) int64, the first row of each row's component.
    """

    def __init__(self, labels: np.ndarray | None = None, rows: int = 0) -> None:
        given = np.arange(rows) if labels is None else labels
        self.labels: np.ndarray[Any, np.dtype[np.int64]] = given.astype(np.int64)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Connect K pairs of rows, (K,) and (K,)."""
        first, second = self.labels[first], self.labels[second]
        apart = first != second
        if not apart.any():
            return
        ends = np.stack([first[apart], second[apart]])
        nodes, numbers = np.unique(ends, return_inverse=True)
        left, right = numbers.reshape(ends.shape)
        edges = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(nodes),) * 2)
        count, component = connected_components(edges, directed=False)
        lowest = np.full(count, len(self.labels), dtype=np.int64)
        np.minimum.at(lowest, component, nodes)
        renamed = np.arange(len(self.labels))
        renamed[nodes] = lowest[component]
        self.labels = renamed[self.labels]
