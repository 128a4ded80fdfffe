"""Tests of iqa_core/duplicates/clusters.py: what is a cluster, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.duplicates.clusters import find_clusters
from iqa_core.duplicates.rows import read_image_rows
from tests.iqa_core.duplicates.outputs import WIDTH, write_output


def at_angle(degrees):
    """A unit vector in the plane of the first two axes."""
    angle = np.deg2rad(degrees)
    return np.eye(WIDTH)[0] * np.cos(angle) + np.eye(WIDTH)[1] * np.sin(angle)


@pytest.fixture
def clusters_of(tmp_path):
    def find(contents, features=None, threshold=0.9, **options):
        scores = write_output(tmp_path, contents, features, **options)
        rows = read_image_rows(scores, None if features is None else scores)
        clusters = find_clusters(rows, threshold)
        return clusters, clusters.with_identities(rows).to_pylist()

    return find


def test_equal_bytes_are_clusters(clusters_of):
    clusters, rows = clusters_of([b"a", b"b", b"c", b"b", b"a", b"a", b"d"])
    found = [(int(row["uri"][0]), row["cluster"], row["kind"], row["similarity"]) for row in rows]
    assert found == [(p, c, "exact", 1.0) for p, c in ((0, 0), (1, 1), (3, 1), (4, 0), (5, 0))]
    assert clusters.describe() == (
        "5 rows in 2 clusters; 5 share their bytes with another row; the largest cluster has 3"
    )


def test_near_features_join_clusters_of_equal_bytes(clusters_of):
    #                0    1     2     3     4
    contents = [b"a", b"b", b"a", b"c", b"d"]
    angles = [0.0, 20.0, 0.0, 90.0, 180.0]
    _, rows = clusters_of(contents, np.array([at_angle(angle) for angle in angles]))
    found = {row["uri"]: (row["cluster"], row["kind"]) for row in rows}
    assert found == {"0.jpg": (0, "exact"), "1.jpg": (0, "near"), "2.jpg": (0, "exact")}
    similarity = {row["uri"]: row["similarity"] for row in rows}
    assert similarity["2.jpg"] == 1.0
    assert similarity["1.jpg"] == pytest.approx(np.cos(np.deg2rad(20)), abs=1e-3)
    assert {row["lowest_similarity"] for row in rows} == {similarity["1.jpg"]}


def test_a_chain_is_one_cluster_and_its_lowest_similarity_says_so(clusters_of):
    contents = [bytes([place]) for place in range(4)]
    features = np.array([at_angle(angle) for angle in (0, 20, 40, 60)])
    clusters, rows = clusters_of(contents, features)
    assert [row["cluster"] for row in rows] == [0] * 4
    expected = np.cos(np.deg2rad([0, 20, 40, 60]))
    np.testing.assert_allclose([row["similarity"] for row in rows], expected, atol=1e-3)
    assert {row["lowest_similarity"] for row in rows} == {rows[3]["similarity"]}
    assert "1 clusters are chains, whose similarity to their first row goes down to 0.5" in (
        clusters.describe()
    )


def test_many_equal_features_cost_no_pairs(clusters_of, monkeypatch):
    """Blank images of many sizes: every one would be a pair with every other."""
    searched = []

    def search(features, threshold):
        searched.append(len(features))
        return iter(())

    monkeypatch.setattr("iqa_core.duplicates.clusters.exact_pairs", search)
    contents = [bytes([place]) for place in range(30)]
    features = np.tile(at_angle(0), (30, 1))
    features[7] = at_angle(90)
    _, rows = clusters_of(contents, features)
    assert searched == [2]
    assert len(rows) == 29
    assert {row["kind"] for row in rows} == {"near"}


def test_failed_rows_and_rows_without_features_have_no_near_duplicates(clusters_of):
    contents = [bytes([place]) for place in range(4)]
    features = np.array([at_angle(0)] * 4)
    features[2] = np.nan
    _, rows = clusters_of(contents, features, failed=(1,))
    assert [row["uri"] for row in rows] == ["0.jpg", "3.jpg"]


def test_near_descriptors_are_clusters_and_images_without_contrast_are_none(clusters_of):
    contents = [bytes([place]) for place in range(5)]
    descriptors = np.random.default_rng(0).integers(-127, 128, (5, 168), np.int8)
    descriptors[3] = descriptors[1] // 2
    descriptors[[2, 4]] = 0  # two blank images of different bytes
    _, rows = clusters_of(contents, descriptors=descriptors)
    assert [(row["uri"], row["kind"]) for row in rows] == [("1.jpg", "near"), ("3.jpg", "near")]
    assert rows[1]["similarity"] == pytest.approx(1, abs=1e-3)


def test_no_duplicates_are_an_empty_table(clusters_of):
    clusters, rows = clusters_of([b"a", b"b"], np.eye(2, WIDTH))
    assert rows == []
    assert clusters.describe().startswith("0 rows in 0 clusters; 0 share")


def test_the_index_finds_the_same_clusters(tmp_path):
    pytest.importorskip("faiss")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(900, WIDTH))
    features[600:] = features[:300] + generator.normal(size=(300, WIDTH)) * 0.02
    scores = write_output(tmp_path, [b"%d" % place for place in range(900)], features)
    rows = read_image_rows(scores, scores)
    every, indexed = (find_clusters(rows, 0.99, most_exact=most) for most in (900, 899))
    assert len(every.places) >= 600
    both = np.intersect1d(every.places, indexed.places)
    assert len(both) >= 0.98 * len(every.places)
    assert len(np.setdiff1d(indexed.places, every.places)) <= 0.01 * len(every.places)
