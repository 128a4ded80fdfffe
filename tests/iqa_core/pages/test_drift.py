"""Tests of iqa_core/pages/drift.py: rows aligned by place or URI, ranks, status changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.pages.drift import compare_pairs, compare_runs, largest_gap

NAN = np.nan


def run(scores, uris=None, rows=None):
    """Return a run's table: a score of None is a row that failed."""
    count = len(scores)
    return pa.table(
        {
            "manifest_file": ["m.parquet"] * count,
            "manifest_row": pa.array(rows if rows is not None else range(count), pa.int64()),
            "uri": pa.array(uris or [f"{i}.jpg" for i in range(count)], pa.string()),
            "status": ["empty" if score is None else "ok" for score in scores],
            "score": pa.array(scores, pa.float32()),
        }
    )


def test_rows_of_one_manifest_join_by_place():
    here = run([0.1, 0.2, 0.3, 0.4], uris=[None] * 4)
    there = run([0.9, None, 0.7, 0.1], uris=[None] * 4, rows=[3, 2, 1, 7])
    found = compare_runs(here, there, same_manifest=True)
    assert found.joined_by == "place"
    assert (found.rows, found.only_here, found.only_there) == (3, 1, 1)
    np.testing.assert_allclose(found.score, [NAN, 0.7, NAN, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(found.here, [NAN, 0, NAN, 1])
    np.testing.assert_array_equal(found.difference, [NAN, 0, NAN, 0])
    assert found.statuses == {("ok", "empty"): 1}
    assert len(found.all_scores) == 3


def test_other_manifests_join_by_uri_where_it_is_unique():
    here = run([0.1, 0.2, 0.3, 0.4, 0.5], uris=["a", "b", "b", None, "c"])
    there = run([0.5, 0.4, 0.3, 0.2], uris=["c", "b", None, "a"])
    found = compare_runs(here, there, same_manifest=False)
    assert found.joined_by == "uri"
    assert (found.rows, found.only_here, found.only_there) == (2, 3, 2)
    np.testing.assert_allclose(found.score, [0.2, NAN, NAN, NAN, 0.5], rtol=1e-6)


def test_ranks_are_among_the_images_scored_in_both_with_ties_averaged():
    found = compare_runs(
        run([0.1, 0.2, 0.3, 0.4, None]), run([0.5, None, 0.5, 0.4, 0.9]), same_manifest=True
    )
    np.testing.assert_array_equal(found.here, [0, NAN, 0.5, 1, NAN])
    np.testing.assert_array_equal(found.there, [0.75, NAN, 0.75, 0, NAN])
    assert found.statuses == {("ok", "empty"): 1, ("empty", "ok"): 1}


def test_nothing_in_common():
    found = compare_runs(run([0.1]), run([0.2], uris=["other"]), same_manifest=False)
    assert found.rows == 0
    assert np.isnan(found.difference).all()
    one = compare_runs(run([0.1]), run([0.2]), same_manifest=True)
    assert one.difference[0] == 0


def test_pairs_are_compared_by_rank_not_by_value():
    low = np.array([0.01, 0.02, 0.03, NAN, 0.04])  # another scale, the same order
    high = np.array([0.91, 0.92, 0.93, 0.94, 0.95])
    same = compare_pairs({"low": low[[0, 1, 2, 4]], "high": high[[0, 1, 2, 4]]})
    np.testing.assert_array_equal(same.spread, 0)
    turned = compare_pairs({"low": low, "high": high[::-1], "flat": np.ones(5)})
    assert np.isnan(turned.spread[3])
    assert (turned.highest[0], turned.lowest[0]) == (1, 0)
    assert turned.spread[0] == 1
    np.testing.assert_array_equal(turned.ranks[2], 0.5)


def test_the_gap_of_two_distributions_is_that_of_kolmogorov_and_smirnov():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=50).round(1), rng.normal(0.5, 2, size=70).round(1)
    # the cumulative shares at each value that there is
    gap = max(abs((first <= x).mean() - (second <= x).mean()) for x in {*first, *second})
    assert gap > 0.1
    assert largest_gap(first, second) == pytest.approx(gap)
    assert largest_gap(first, first) == 0
    assert largest_gap(first[:1], first[:1] + 1) == 1
