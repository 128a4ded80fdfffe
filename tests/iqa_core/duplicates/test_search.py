"""Tests of iqa_core/duplicates/exact_search.py and indexed_search.py: the pairs that they find."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from iqa_core.duplicates.exact_search import exact_pairs, unit_rows
from iqa_core.duplicates.indexed_search import indexed_pairs
from iqa_core.errors import InputError


def features_with_copies(rows, width=32, seed=0):
    """Random directions; a third of the rows is another one with a little noise."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, width)).astype(np.float32)
    copies = generator.permutation(rows)[: rows // 3]
    sources = generator.integers(0, rows, len(copies))
    noise = generator.normal(size=(len(copies), width)) * generator.uniform(
        0, 0.6, (len(copies), 1)
    )
    features[copies] = features[sources] + noise
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)


def pairs_of(found):
    return {
        pair
        for first, second in found
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    }


def all_pairs(features, threshold):
    cosines = unit_rows(features) @ unit_rows(features).T
    return pairs_of([np.nonzero(np.triu(cosines >= threshold, 1))])


@pytest.mark.parametrize(("rows", "threshold"), [(1, 0.9), (50, 0.9), (2500, 0.95), (9500, 0.98)])
def test_the_exact_search_finds_every_pair_once(rows, threshold):
    features = features_with_copies(rows)
    found = list(exact_pairs(features, threshold))
    pairs = pairs_of(found)
    expected = all_pairs(features, threshold)
    assert len(pairs) == sum(len(first) for first, _ in found)
    # The order of additions differs between blocks of different sizes.
    cosines = {
        pair: float(np.prod(unit_rows(features[list(pair)]), axis=0).sum())
        for pair in pairs ^ expected
    }
    assert all(abs(cosine - threshold) < 1e-5 for cosine in cosines.values())
    assert rows < 50 or len(pairs & expected) > 0


def test_the_length_of_rows_does_not_count():
    features = features_with_copies(200).astype(np.float32)
    longer = features * np.random.default_rng(1).uniform(0.5, 2, (200, 1)).astype(np.float32)
    assert pairs_of(exact_pairs(longer, 0.9)) == pairs_of(exact_pairs(features, 0.9))


def test_the_index_finds_nearly_every_pair_and_no_other():
    pytest.importorskip("faiss")
    features = features_with_copies(6000)
    found = list(indexed_pairs(features, 0.95))
    pairs, expected = pairs_of(found), all_pairs(features, 0.95)
    assert all((first < second).all() for first, second in found)
    assert len(pairs & expected) >= 0.97 * len(expected)
    assert len(pairs - all_pairs(features, 0.949)) == 0


def test_without_faiss_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        InputError, match=r"among 100 rows need faiss: pip install 'distributed-iqa\["
    ):
        list(indexed_pairs(features_with_copies(100), 0.9))
