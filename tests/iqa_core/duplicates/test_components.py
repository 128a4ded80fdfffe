"""Tests of iqa_core/duplicates/components.py against slow, obvious ones."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.duplicates.components import Components, first_equal


def slow_labels(count, pairs):
    """Return the first row of each row's component, by spreading labels until nothing changes."""
    labels = list(range(count))
    changed = True
    while changed:
        changed = False
        for one, other in pairs:
            lowest = min(labels[one], labels[other])
            changed |= labels[one] != lowest or labels[other] != lowest
            labels[one] = labels[other] = lowest
    return labels


@pytest.mark.parametrize("seed", range(8))
def test_components_are_those_of_the_pairs_in_any_chunks(seed):
    generator = np.random.default_rng(seed)
    count = 60
    pairs = generator.integers(0, count, (int(generator.integers(0, 70)), 2))
    components = Components(rows=count)
    for chunk in np.array_split(pairs, 5):
        components.join(chunk[:, 0], chunk[:, 1])
    assert components.labels.tolist() == slow_labels(count, pairs.tolist())


def test_a_chain_is_one_component():
    components = Components(rows=5)
    components.join(np.array([3]), np.array([4]))
    components.join(np.array([1]), np.array([3]))
    assert components.labels.tolist() == [0, 1, 2, 1, 1]


def test_components_may_start_with_equal_rows():
    components = Components(np.array([0, 1, 0, 3]))
    components.join(np.array([2]), np.array([3]))  # 2 is one with 0
    assert components.labels.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_first_equal(seed):
    values = np.random.default_rng(seed).integers(0, 4, (50, 2)).astype(np.uint64)
    rows = [tuple(row) for row in values.tolist()]
    assert first_equal(values).tolist() == [rows.index(row) for row in rows]
    assert first_equal(values[:0]).tolist() == []
